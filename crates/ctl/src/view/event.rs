//! Changes, as a watch shows them.

use serde::Serialize;
use trestle_api::v1;
use trestle_api::v1::event::Resource;

use super::{BackendView, ListenerView, MemberView, PoolView, VipView, short_name};
use crate::table::plain;

/// One change of one resource.
#[derive(Debug, Serialize)]
pub(crate) struct EventView {
    revision: u64,
    event: &'static str,
    kind: &'static str,
    name: String,
    resource: ResourceView,
}

/// The resource as it is now, or as it last was when it was deleted.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ResourceView {
    Pool(Box<PoolView>),
    Backend(BackendView),
    Listener(Box<ListenerView>),
    Member(MemberView),
    Vip(Box<VipView>),
}

impl EventView {
    /// The view of an event; `None` for a kind of resource that this program does not know.
    pub(crate) fn new(revision: u64, event: v1::Event) -> Option<Self> {
        let word = match event.r#type() {
            v1::EventType::Current => "current",
            v1::EventType::Created => "created",
            v1::EventType::Updated => "updated",
            v1::EventType::Deleted => "deleted",
            v1::EventType::Unspecified => "unknown",
        };
        let (kind, name, resource) = match event.resource? {
            Resource::Pool(pool) => {
                ("pool", short_name(&pool.name), ResourceView::Pool(Box::new(pool.into())))
            }
            Resource::Backend(backend) => {
                ("backend", short_name(&backend.name), ResourceView::Backend(backend.into()))
            }
            Resource::Listener(listener) => {
                ("listener", short_name(&listener.name), ResourceView::Listener(Box::new(listener.into())))
            }
            Resource::Vip(vip) => ("vip", short_name(&vip.name), ResourceView::Vip(Box::new(vip.into()))),
            Resource::Member(member) => {
                ("member", short_name(&member.name), ResourceView::Member(member.into()))
            }
        };
        Some(Self { revision, event: word, kind, name, resource })
    }

    /// Headings above [`EventView::line`]. The columns are fixed, because lines come one at a time.
    pub(crate) const HEADINGS: &'static str = "REVISION   EVENT     KIND       NAME\n";

    /// One line.
    pub(crate) fn line(&self) -> String {
        format!("{:<10} {:<9} {:<10} {}\n", self.revision, self.event, self.kind, plain(&self.name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::sample_backend;

    #[test]
    fn a_line_stands_below_its_headings() {
        let event = v1::Event {
            r#type: v1::EventType::Created.into(),
            resource: Some(Resource::Backend(sample_backend("a", 1))),
        };
        let view = EventView::new(17, event).unwrap();
        let text = EventView::HEADINGS.to_owned() + &view.line();
        assert_eq!(
            text,
            "REVISION   EVENT     KIND       NAME\n\
             17         created   backend    web/a\n"
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["resource"]["address"], "10.0.0.1:8080");
    }

    #[test]
    fn kinds_of_a_later_version_are_left_out() {
        assert!(EventView::new(1, v1::Event { r#type: 2, resource: None }).is_none());
    }
}
