//! Waiting until a member serves all virtual IPs.

use tokio::time::{Instant, sleep};
use trestle_api::v1;

use super::LOOK;
use crate::error::Error;
use crate::session::{Repeat, Session, vips};
use crate::view::short_name;

/// Waits, at most for the time of `--timeout`, until a member's kernel has every virtual IP and lets it be served: the address is
/// present and the fence open. Answers which they are.
///
/// # Errors
/// When it does not come to that, with what is missing.
pub(crate) async fn serving(session: &mut Session<'_>, holder: &str) -> Result<Vec<String>, Error> {
    let deadline = Instant::now() + session.timeout();
    loop {
        let request = v1::GetVipStatusRequest { name: String::new() };
        let make = async |channel| vips(channel).get_vip_status(request.clone()).await;
        let status = session.call(Repeat::Watch, make).await?;
        let views: Vec<_> = status.views.iter().filter(|view| short_name(&view.member) == holder).collect();
        let missing: Vec<String> = views.iter().filter_map(|view| missing(view)).collect();
        let silent = status.unreachable_members.iter().any(|member| short_name(member) == holder);
        if missing.is_empty() && !silent {
            return Ok(views.iter().map(|view| short_name(&view.vip)).collect());
        }
        if Instant::now() >= deadline {
            let missing = if silent { vec!["it does not answer".to_owned()] } else { missing };
            return Err(Error::NotServing { holder: holder.to_owned(), missing });
        }
        sleep(LOOK).await;
    }
}

/// What is missing for a virtual IP to be served.
fn missing(view: &v1::VipView) -> Option<String> {
    if view.holds {
        return None;
    }
    let name = short_name(&view.vip);
    let facts = match (view.address_present, view.fence_open_for.is_some()) {
        (false, _) => "its address is not there",
        (true, false) => "its fence is shut",
        (true, true) => "it is not served",
    };
    let problems = view.problems.join("; ");
    Some(if problems.is_empty() {
        format!("{name}: {facts}")
    } else {
        format!("{name}: {facts} ({problems})")
    })
}
