//! Who held the virtual IPs when, and why that changed.

use serde::Serialize;
use trestle_api::v1;

use super::span::rfc3339;
use super::{or_dash, short_name};
use crate::table;

/// One line of the history.
#[derive(Debug, Serialize)]
pub(crate) struct VipEventView {
    /// RFC 3339 in UTC, by the member's own clock; `None` when it cannot be told.
    time: Option<String>,
    event: &'static str,
    /// `None` if it was no member any more.
    member: Option<String>,
    term: u64,
    reason: String,
    vips: Vec<String>,
    index: u64,
}

impl From<v1::VipEvent> for VipEventView {
    fn from(event: v1::VipEvent) -> Self {
        Self {
            time: event.time.and_then(rfc3339),
            event: match event.r#type() {
                v1::VipEventType::Taken => "taken",
                v1::VipEventType::Released => "released",
                v1::VipEventType::Unspecified => "unknown",
            },
            member: Some(short_name(&event.member)).filter(|name| !name.is_empty()),
            term: event.term,
            reason: event.reason,
            vips: event.vips.iter().map(|name| short_name(name)).collect(),
            index: event.index,
        }
    }
}

impl VipEventView {
    /// One line for each event.
    pub(crate) fn table(events: &[Self]) -> String {
        let row = |e: &Self| {
            let (time, member) = (or_dash(e.time.as_ref()), or_dash(e.member.as_ref()));
            [time, member, e.event.to_owned(), e.term.to_string(), e.vips.join(","), e.reason.clone()]
        };
        table::table(["TIME", "MEMBER", "EVENT", "TERM", "VIPS", "WHY"], events.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_line_tells_when_who_and_why() {
        let taken = v1::VipEvent {
            time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 250_000_000 }),
            r#type: v1::VipEventType::Taken.into(),
            member: "members/m1".to_owned(),
            term: 4,
            reason: "the lease of m2 ran out".to_owned(),
            vips: vec!["vips/api".to_owned(), "vips/web".to_owned()],
            index: 31,
        };
        let gone = v1::VipEvent {
            time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
            r#type: v1::VipEventType::Released.into(),
            member: String::new(),
            ..taken.clone()
        };
        let views: Vec<VipEventView> = [taken, gone].into_iter().map(Into::into).collect();
        assert_eq!(
            VipEventView::table(&views),
            "TIME                       MEMBER   EVENT      TERM   VIPS      WHY\n\
             2023-11-14T22:13:20.250Z   m1       taken      4      api,web   the lease of m2 ran out\n\
             -                          -        released   4      api,web   the lease of m2 ran out\n"
        );
        let json = serde_json::to_value(&views[0]).unwrap();
        assert_eq!((&json["event"], &json["index"]), (&"taken".into(), &31.into()));
    }
}
