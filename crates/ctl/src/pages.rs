//! Answers that come in pages, put together again.

use tonic::transport::Channel;
use tonic::{Response, Status};
use trestle_api::v1;

use crate::session::{listeners, pools};

/// Adds the names of members that did not answer for a page to those that did not for one before.
fn add_unreachable(all: &mut Vec<String>, page: Vec<String>) {
    for member in page {
        if !all.contains(&member) {
            all.push(member);
        }
    }
}

/// Whether a page is followed by another one; a member that names a page as the one after itself has no more.
fn follows(token: &mut String, next: String) -> bool {
    let more = !next.is_empty() && next != *token;
    *token = next;
    more
}

/// What the members see of a pool's backends, "pools/{pool}", or of all, "pools/-".
///
/// # Errors
/// The status of the first page that is not to be had.
pub(crate) async fn pool_health(channel: Channel, name: &str) -> Result<Response<v1::PoolHealth>, Status> {
    let (mut all, mut page_token) = (v1::PoolHealth::default(), String::new());
    loop {
        let (name, token) = (name.to_owned(), page_token.clone());
        let request = v1::GetPoolHealthRequest { name, page_size: 0, page_token: token };
        let mut answer = pools(channel.clone()).get_pool_health(request).await?;
        let page = std::mem::take(answer.get_mut());
        all.backends.extend(page.backends);
        add_unreachable(&mut all.unreachable_members, page.unreachable_members);
        if !follows(&mut page_token, page.next_page_token) {
            return Ok(answer.map(|_| all));
        }
    }
}

/// Where the members have a listener bound, "listeners/{listener}", or all of them for an empty name.
///
/// # Errors
/// The status of the first page that is not to be had.
pub(crate) async fn listener_health(
    channel: Channel,
    name: &str,
) -> Result<Response<v1::ListenerHealth>, Status> {
    let (mut all, mut page_token) = (v1::ListenerHealth::default(), String::new());
    loop {
        let (name, token) = (name.to_owned(), page_token.clone());
        let request = v1::GetListenerHealthRequest { name, page_size: 0, page_token: token };
        let mut answer = listeners(channel.clone()).get_listener_health(request).await?;
        let page = std::mem::take(answer.get_mut());
        all.views.extend(page.views);
        add_unreachable(&mut all.unreachable_members, page.unreachable_members);
        if !follows(&mut page_token, page.next_page_token) {
            return Ok(answer.map(|_| all));
        }
    }
}
