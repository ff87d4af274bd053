//! Virtual IPs, with what members' kernels have of them.

use std::collections::BTreeMap;

use serde::Serialize;
use trestle_api::v1;
use trestle_model::OnQuorumLoss;

use super::span::{self, Span};
use super::vip_facts::FactsView;
use super::{MetadataView, or_dash, short_name, troubles, word};
use crate::table;

/// A virtual IP with who holds it.
#[derive(Debug, Serialize)]
pub(crate) struct VipView {
    /// Its name.
    pub(crate) name: String,
    address: String,
    /// `None` for the one that has an address of the same network.
    interface: Option<String>,
    /// By member.
    interface_on: BTreeMap<String, String>,
    on_quorum_loss: &'static str,
    prefer: Vec<String>,
    #[serde(flatten, serialize_with = "span::preference_delay")]
    preference_delay: Option<Span>,
    /// Revision that last changed it.
    pub(crate) revision: u64,
    etag: String,
    #[serde(flatten)]
    metadata: MetadataView,
    /// The member whose kernel serves it; `None` for no member, for several, and where it is not known.
    holder: Option<String>,
    /// All of them: more than one is a split that it was told to be held through, or a fault.
    holders: Vec<String>,
    /// `None` when the members' views could not be had, or were not asked for.
    views: Option<Vec<FactsView>>,
    unreachable: Vec<String>,
    /// What is wrong, in words; empty when all is well.
    problems: Vec<String>,
    /// The one of them that is about who holds it.
    #[serde(skip)]
    unclear: Option<String>,
}

impl From<v1::Vip> for VipView {
    fn from(vip: v1::Vip) -> Self {
        let on_quorum_loss = word::<OnQuorumLoss>(vip.on_quorum_loss);
        let overrides = vip.interface_overrides.into_iter();
        Self {
            name: short_name(&vip.name),
            address: vip.address,
            interface: Some(vip.interface).filter(|name| !name.is_empty()),
            interface_on: overrides.map(|o| (short_name(&o.member), o.interface)).collect(),
            on_quorum_loss,
            prefer: vip.preferred.iter().map(|name| short_name(name)).collect(),
            preference_delay: Span::setting(vip.preference_delay.as_ref()),
            revision: vip.revision,
            etag: vip.etag,
            metadata: MetadataView::new(vip.owner, vip.annotations),
            holder: None,
            holders: Vec::new(),
            views: None,
            unreachable: Vec::new(),
            problems: Vec::new(),
            unclear: None,
        }
    }
}

impl VipView {
    /// Joins virtual IPs with the members' views, which may be missing or tell of others. `why` is why no member holds
    /// any, as far as it is known.
    pub(crate) fn join(vips: Vec<v1::Vip>, status: Option<v1::VipStatus>, why: Option<&str>) -> Vec<Self> {
        let mut vips: Vec<Self> = vips.into_iter().map(Into::into).collect();
        let Some(status) = status else {
            return vips;
        };
        let unreachable: Vec<String> = status.unreachable_members.iter().map(|m| short_name(m)).collect();
        let mut views = BTreeMap::<String, Vec<FactsView>>::new();
        for view in status.views {
            views.entry(short_name(&view.vip)).or_default().push(view.into());
        }
        for vip in &mut vips {
            let seen = views.remove(&vip.name).unwrap_or_default();
            vip.holders = seen.iter().filter(|v| v.holds).map(|v| v.member.clone()).collect();
            if let [one] = vip.holders.as_slice() {
                vip.holder = Some(one.clone());
            }
            let told = seen.iter().filter_map(|v| Some((v.member.clone(), v.trouble()?)));
            let silent = unreachable.iter().map(|member| (member.clone(), "unreachable".to_owned()));
            let told = troubles(seen.len() + unreachable.len(), told.chain(silent));
            vip.unreachable.clone_from(&unreachable);
            vip.views = Some(seen);
            vip.unclear = vip.holding_problem(why);
            vip.problems.extend(vip.unclear.clone());
            vip.problems.extend(Some(told).filter(|told| !told.is_empty()));
        }
        vips
    }

    /// What is wrong unless exactly one member holds it.
    fn holding_problem(&self, why: Option<&str>) -> Option<String> {
        let because = why.map(|why| format!(": {why}")).unwrap_or_default();
        match self.holders.as_slice() {
            [_] => None,
            [] if self.unreachable.is_empty() => Some(format!("no member holds it{because}")),
            [] => Some(format!("no member that answers holds it{because}")),
            several => {
                Some(format!("HELD BY {} AT ONCE: clients may reach any of them", several.join(" AND ")))
            }
        }
    }

    fn held(&self) -> impl Iterator<Item = &FactsView> {
        self.views.iter().flatten().filter(|view| view.holds)
    }

    fn holders(&self) -> String {
        self.holders.join(" AND ")
    }

    /// Where it is; while nobody holds it, where it shall be.
    fn interface(&self) -> String {
        let mut names: Vec<&str> = self.held().filter_map(|view| view.interface.as_deref()).collect();
        if names.is_empty() {
            names.extend(self.interface.as_deref());
        }
        names.dedup();
        names.join(",")
    }

    fn lease(&self) -> String {
        self.held().map(FactsView::lease).collect::<Vec<_>>().join(", ")
    }

    fn preference(&self) -> String {
        let after = self.preference_delay.as_ref().map(|delay| format!(" after {delay}")).unwrap_or_default();
        if self.prefer.is_empty() { String::new() } else { self.prefer.join(",") + &after }
    }

    fn overrides(&self) -> impl Iterator<Item = String> {
        self.interface_on.iter().map(|(member, interface)| format!("{member}={interface}"))
    }

    /// What is not the default, in words: "interface-on m2=eth1, on-quorum-loss hold, prefer m1 after 10s".
    fn special(&self) -> String {
        let mut words: Vec<String> = self.overrides().map(|one| format!("interface-on {one}")).collect();
        if self.on_quorum_loss != "release" {
            words.push(format!("on-quorum-loss {}", self.on_quorum_loss));
        }
        if !self.prefer.is_empty() {
            words.push(format!("prefer {}", self.preference()));
        }
        words.join(", ")
    }

    /// One line for each virtual IP.
    pub(crate) fn table(vips: &[Self]) -> String {
        let row = |v: &Self| {
            [v.name.clone(), v.address.clone(), v.interface(), v.holders(), v.lease(), v.special()]
        };
        let headings = ["NAME", "ADDRESS", "INTERFACE", "HOLDER", "LEASE", "SETTINGS"];
        let mut text = table::table(headings, vips.iter().map(row));
        let problems = vips.iter().flat_map(|v| v.problems.iter().map(|why| (&v.name, why)));
        for (number, (name, why)) in problems.enumerate() {
            text.push_str(if number == 0 { "\n" } else { "" });
            text.push_str(&format!("{name}: {}\n", table::escaped(why)));
        }
        text
    }

    /// All settings, then what each member has of it, and what is wrong.
    pub(crate) fn description(&self) -> String {
        let own = || "the one with an address of the same network".to_owned();
        let overrides: Vec<String> = self.overrides().collect();
        let settings = [
            ("NAME", self.name.clone()),
            ("ADDRESS", self.address.clone()),
            ("INTERFACE", self.interface.clone().unwrap_or_else(own)),
            ("INTERFACE-ON", overrides.join(",")),
            ("ON-QUORUM-LOSS", self.on_quorum_loss.to_owned()),
            ("PREFER", self.prefer.join(",")),
            ("PREFERENCE-DELAY", or_dash(self.preference_delay.as_ref())),
            ("HOLDER", self.holders()),
            ("LEASE", self.lease()),
            ("REVISION", self.revision.to_string()),
            ("ETAG", self.etag.clone()),
        ];
        let mut text = table::fields(settings.into_iter().chain(self.metadata.fields()));
        let Some(views) = &self.views else {
            return text;
        };
        let silent = |member: &String| {
            let dash = String::new;
            [member.clone(), dash(), dash(), dash(), dash(), dash(), "unreachable".to_owned()]
        };
        let rows = views.iter().map(FactsView::row).chain(self.unreachable.iter().map(silent));
        text.push('\n');
        text.push_str(&table::table(FactsView::HEADINGS, rows));
        if let Some(problem) = &self.unclear {
            text.push_str(&format!("\nproblem: {}\n", table::plain(problem)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::{sample_vip, sample_vip_view};

    fn status(views: Vec<v1::VipView>, unreachable: &[&str]) -> Option<v1::VipStatus> {
        let unreachable_members = unreachable.iter().map(|m| format!("members/{m}")).collect();
        Some(v1::VipStatus { views, unreachable_members })
    }

    fn joined(views: Vec<v1::VipView>, unreachable: &[&str], why: Option<&str>) -> VipView {
        VipView::join(vec![sample_vip("api")], status(views, unreachable), why).remove(0)
    }

    #[test]
    fn a_list_says_who_holds_what_and_until_when() {
        let views = vec![sample_vip_view("api", "m1", true), sample_vip_view("api", "m2", false)];
        let api = v1::Vip { interface_overrides: Vec::new(), ..sample_vip("api") };
        let plain = v1::Vip { preferred: Vec::new(), ..api.clone() };
        let other = v1::Vip { name: "vips/other".to_owned(), ..plain };
        let vips = VipView::join(vec![api, other], status(views, &[]), Some("no leader is known"));
        assert_eq!(
            VipView::table(&vips),
            "NAME    ADDRESS         INTERFACE   HOLDER   LEASE   SETTINGS\n\
             api     10.0.3.100/24   eth0        m1       212ms   prefer m2 after 10s\n\
             other   10.0.3.100/24   -           -        -       -\n\
             \n\
             other: no member holds it: no leader is known\n"
        );
    }

    #[test]
    fn two_holders_cannot_be_overlooked() {
        let held = v1::VipView { without_quorum: true, ..sample_vip_view("api", "m1", true) };
        let vip = joined(vec![held, sample_vip_view("api", "m2", true)], &["m3"], None);
        assert_eq!((vip.holders(), vip.lease()), ("m1 AND m2".to_owned(), "212ms, 212ms".to_owned()));
        assert_eq!(
            vip.problems,
            [
                "HELD BY m1 AND m2 AT ONCE: clients may reach any of them",
                "m1: holds it without a quorum, another member may hold it too; m3: unreachable",
            ]
        );
        let json = serde_json::to_value(&vip).unwrap();
        assert_eq!(
            (&json["holder"], json["holders"].as_array().unwrap().len()),
            (&serde_json::Value::Null, 2)
        );
    }

    #[test]
    fn a_vip_that_nobody_holds_says_why() {
        let problem = |unreachable: &[&str], why| {
            let mut view = sample_vip_view("api", "m1", false);
            view.problems = vec!["eth0 is down".to_owned()];
            joined(vec![view], unreachable, why).problems
        };
        assert_eq!(problem(&[], None), ["no member holds it", "m1: eth0 is down"]);
        assert_eq!(
            problem(&["m2"], Some("only 1 of 3 voters answer")),
            [
                "no member that answers holds it: only 1 of 3 voters answer",
                "m1: eth0 is down; m2: unreachable"
            ]
        );
    }

    #[test]
    fn a_description_has_every_fact() {
        let mut foreign = sample_vip_view("api", "m2", false);
        foreign.address_present = true;
        foreign.interface = "enp3s0".to_owned();
        let vip = joined(vec![sample_vip_view("api", "m1", true), foreign], &["m3"], None);
        assert_eq!(
            vip.description(),
            "NAME               api\n\
             ADDRESS            10.0.3.100/24\n\
             INTERFACE          the one with an address of the same network\n\
             INTERFACE-ON       m2=enp3s0\n\
             ON-QUORUM-LOSS     release\n\
             PREFER             m2\n\
             PREFERENCE-DELAY   10s\n\
             HOLDER             m1\n\
             LEASE              212ms\n\
             REVISION           15\n\
             ETAG               15\n\
             \n\
             MEMBER   HOLDS   ADDRESS   FENCE            INTERFACE   ANNOUNCED   PROBLEMS\n\
             m1       yes     present   open for 212ms   eth0        3s ago      -\n\
             m2       no      present   shut             enp3s0      -           has the address, with its fence shut\n\
             m3       -       -         -                -           -           unreachable\n"
        );
        let text = joined(vec![sample_vip_view("api", "m1", false)], &[], Some("why")).description();
        assert!(text.ends_with("\n\nproblem: no member holds it: why\n"), "{text}");
    }

    #[test]
    fn settings_alone_are_shown_when_nobody_can_tell() {
        let vips = VipView::join(vec![sample_vip("api")], None, None);
        assert!(vips[0].problems.is_empty() && vips[0].views.is_none());
        let row = "api    10.0.3.100/24   -           -        -       interface-on m2=enp3s0";
        assert!(VipView::table(&vips).lines().last().unwrap().starts_with(row), "{}", VipView::table(&vips));
        assert!(vips[0].description().ends_with("ETAG               15\n"));
    }
}
