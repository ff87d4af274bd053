//! What one member's kernel has of a virtual IP.

use std::time::Duration;

use serde::Serialize;
use trestle_api::v1;

use super::member::yes_no;
use super::span::{self, Span};
use super::{or_dash, short_name};

/// How long it is told that another program changed a fence, which has been put back at once.
const TAMPERED: Duration = Duration::from_secs(10 * 60);

/// A virtual IP on one member.
#[derive(Debug, Serialize)]
pub(crate) struct FactsView {
    pub(super) member: String,
    /// The kernel has the address and lets it be served.
    pub(super) holds: bool,
    address_present: bool,
    /// `None` when the fence is shut.
    #[serde(flatten, serialize_with = "span::fence_open_for")]
    fence_open_for: Option<Span>,
    degraded_fence: bool,
    /// `None` when none suits.
    pub(super) interface: Option<String>,
    /// `None` when it never was.
    announced: Option<String>,
    #[serde(flatten, serialize_with = "span::announced_ago")]
    announced_ago: Option<Span>,
    /// `None` when no other host was heard to claim the address.
    foreign_mac: Option<String>,
    foreign_heard: Option<String>,
    #[serde(flatten, serialize_with = "span::foreign_ago")]
    foreign_ago: Option<Span>,
    without_quorum: bool,
    problems: Vec<String>,
    fence_repairs: u64,
    /// `None` when it was never put back.
    fence_repaired: Option<String>,
    #[serde(flatten, serialize_with = "span::fence_repaired_ago")]
    fence_repaired_ago: Option<Span>,
    fence_change: Option<String>,
    /// It was put back a short while ago.
    #[serde(skip)]
    tampered: bool,
}

impl From<v1::VipView> for FactsView {
    fn from(view: v1::VipView) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let announced_ago = Span::millis(view.announced_ago.as_ref());
        let foreign_ago = Span::millis(view.foreign_ago.as_ref());
        let fence_repaired_ago = Span::millis(view.fence_repaired_ago.as_ref());
        Self {
            member: short_name(&view.member),
            holds: view.holds,
            address_present: view.address_present,
            fence_open_for: Span::millis(view.fence_open_for.as_ref()),
            degraded_fence: view.degraded_fence,
            interface: some(view.interface),
            announced: announced_ago.and_then(Span::ago),
            announced_ago,
            foreign_mac: some(view.foreign_mac),
            foreign_heard: foreign_ago.and_then(Span::ago),
            foreign_ago,
            without_quorum: view.without_quorum,
            problems: view.problems,
            fence_repairs: view.fence_repairs,
            fence_repaired: fence_repaired_ago.and_then(Span::ago),
            fence_repaired_ago,
            fence_change: some(view.fence_change),
            tampered: fence_repaired_ago.is_some_and(|ago| ago.get() < TAMPERED),
        }
    }
}

impl FactsView {
    /// Headings above [`FactsView::row`].
    pub(super) const HEADINGS: [&'static str; 7] =
        ["MEMBER", "HOLDS", "ADDRESS", "FENCE", "INTERFACE", "ANNOUNCED", "PROBLEMS"];

    /// How long it may go on without another renewal.
    pub(super) fn lease(&self) -> String {
        let degraded = if self.degraded_fence { " (degraded fence)" } else { "" };
        or_dash(self.fence_open_for.as_ref()) + degraded
    }

    fn fence(&self) -> String {
        let state = match &self.fence_open_for {
            Some(time) => format!("open for {time}"),
            None => "shut".to_owned(),
        };
        if self.degraded_fence { format!("degraded, {state}") } else { state }
    }

    /// One line of facts.
    pub(super) fn row(&self) -> [String; 7] {
        [
            self.member.clone(),
            yes_no(self.holds),
            if self.address_present { "present" } else { "absent" }.to_owned(),
            self.fence(),
            self.interface.clone().unwrap_or_default(),
            self.announced_ago.as_ref().map(|ago| format!("{ago} ago")).unwrap_or_default(),
            self.trouble().unwrap_or_default(),
        ]
    }

    /// What an operator should know of it on this member; `None` for nothing.
    pub(super) fn trouble(&self) -> Option<String> {
        let mut words: Vec<String> = Vec::new();
        let open = self.fence_open_for.is_some();
        words.extend(match (self.holds, self.address_present, open) {
            (true, _, false) => Some("holds it without a fence".to_owned()),
            (false, true, false) => Some("has the address, with its fence shut".to_owned()),
            (false, true, true) => Some("has the address and does not serve it".to_owned()),
            (_, false, true) => Some("has its fence open and not the address".to_owned()),
            (true, true, true) | (false, false, false) => None,
        });
        if self.degraded_fence {
            words.push("degraded fence, without nftables".to_owned());
        }
        if self.without_quorum {
            words.push("holds it without a quorum, another member may hold it too".to_owned());
        }
        if let Some(mac) = &self.foreign_mac {
            let heard = self.foreign_ago.as_ref().map(|ago| format!(" (heard {ago} ago)"));
            words.push(format!("{mac} claims the address too{}", heard.unwrap_or_default()));
        }
        if self.tampered {
            let ago = or_dash(self.fence_repaired_ago.as_ref());
            let what = self.fence_change.as_deref().unwrap_or_default();
            let count = self.fence_repairs;
            words.push(format!(
                "another program changed its fence {ago} ago, put back ({count} so far): {what}"
            ));
        }
        words.extend(self.problems.iter().cloned());
        Some(words.join(", ")).filter(|words| !words.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::sample_vip_view;

    #[test]
    fn keys_are_always_there() {
        let json = serde_json::to_value(FactsView::from(v1::VipView::default())).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let mut expected = [
            "member",
            "holds",
            "address_present",
            "fence_open_for",
            "fence_open_for_seconds",
            "degraded_fence",
            "interface",
            "announced",
            "announced_ago",
            "announced_ago_seconds",
            "foreign_mac",
            "foreign_heard",
            "foreign_ago",
            "foreign_ago_seconds",
            "without_quorum",
            "problems",
            "fence_repairs",
            "fence_repaired",
            "fence_repaired_ago",
            "fence_repaired_ago_seconds",
            "fence_change",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        let json = serde_json::to_value(FactsView::from(sample_vip_view("api", "m1", true))).unwrap();
        assert_eq!((&json["fence_open_for"], &json["announced_ago"]), (&"212ms".into(), &"3s".into()));
        assert_eq!(
            (&json["fence_open_for_seconds"], &json["announced_ago_seconds"]),
            (&0.212.into(), &3.0.into())
        );
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let trouble = |change: fn(&mut v1::VipView), holds| {
            let mut view = sample_vip_view("api", "m1", holds);
            change(&mut view);
            FactsView::from(view).trouble()
        };
        let told = |text: &str| Some(text.to_owned());
        assert_eq!(trouble(|_| {}, true), None);
        assert_eq!(trouble(|_| {}, false), None);
        assert_eq!(trouble(|v| v.fence_open_for = None, true), told("holds it without a fence"));
        assert_eq!(
            trouble(|v| v.address_present = true, false),
            told("has the address, with its fence shut")
        );
        assert_eq!(
            trouble(|v| v.address_present = false, true),
            told("has its fence open and not the address")
        );
        assert_eq!(trouble(|v| v.degraded_fence = true, true), told("degraded fence, without nftables"));
        let foreign = |v: &mut v1::VipView| {
            v.foreign_mac = "02:00:00:00:00:ff".to_owned();
            v.foreign_ago = Some(prost_types::Duration { seconds: 2, nanos: 1 });
            v.problems = vec!["eth0 is down".to_owned()];
        };
        assert_eq!(
            trouble(foreign, true),
            told("02:00:00:00:00:ff claims the address too (heard 2s ago), eth0 is down")
        );
    }

    #[test]
    fn that_a_fence_was_changed_is_told_for_a_while() {
        let told = |seconds| {
            let view = v1::VipView {
                fence_repairs: 3,
                fence_repaired_ago: Some(prost_types::Duration { seconds, nanos: 0 }),
                fence_change: "table inet trestle_m1: it is gone".to_owned(),
                ..sample_vip_view("api", "m1", true)
            };
            FactsView::from(view).trouble()
        };
        let words = "another program changed its fence 12s ago, put back (3 so far): table inet trestle_m1: it is gone";
        assert_eq!(told(12).as_deref(), Some(words));
        assert_eq!(told(600), None);
    }

    #[test]
    fn a_degraded_fence_shows_beside_the_lease() {
        let view = v1::VipView { degraded_fence: true, ..sample_vip_view("api", "m1", true) };
        let facts = FactsView::from(view);
        assert_eq!(
            (facts.lease(), facts.fence()),
            ("212ms (degraded fence)".to_owned(), "degraded, open for 212ms".to_owned())
        );
    }
}
