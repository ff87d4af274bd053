//! Settings of a virtual IP as options, for creation and update alike.

use clap::Args;
use trestle_api::v1;
use trestle_model::OnQuorumLoss;

use super::choice::{choice, number};
use super::field_mask::FieldMaskBuilder;
use super::resource::GivenChange;
use crate::input::Input;

const ON_MEMBER_RULE: &str = "must be MEMBER=INTERFACE, as in m2=eth1";

/// Settings of a virtual IP; those that are not given get their default on creation and stay as they are in an update.
#[derive(Debug, Default, Args)]
pub(crate) struct VipSettings {
    /// Interface that gets it [default: the one that has another address of the same network]
    #[arg(long, value_name = "IF", help_heading = "Interfaces")]
    pub(crate) interface: Option<String>,
    /// Interface that gets it on one member, as in m2=eth1; several with commas or by repeating the option
    #[arg(long, value_name = "MEMBER=IF", value_delimiter = ',', help_heading = "Interfaces")]
    pub(crate) interface_on: Vec<String>,
    /// What becomes of it when its holder loses the quorum [default: release]
    #[arg(long, value_name = "WHAT", value_parser = choice::<OnQuorumLoss>(), help_heading = "Who holds it")]
    pub(crate) on_quorum_loss: Option<OnQuorumLoss>,
    /// Members that shall hold it while they are fit, the best first [default: it stays where it is]
    #[arg(long, value_name = "MEMBER", value_delimiter = ',', help_heading = "Who holds it")]
    pub(crate) prefer: Vec<String>,
    /// How long a preferred member must have been fit before it gets it, up to 1day [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Who holds it")]
    pub(crate) preference_delay: Option<String>,
}

/// Settings that an update takes away.
#[derive(Debug, Default, Args)]
pub(crate) struct VipEmptied {
    /// Put it on the interface that has another address of the same network
    #[arg(long, conflicts_with = "interface", help_heading = "Interfaces")]
    pub(crate) no_interface: bool,
    /// Put it on the same interface on every member
    #[arg(long, conflicts_with = "interface_on", help_heading = "Interfaces")]
    pub(crate) no_interface_on: bool,
    /// Leave it where it is
    #[arg(long, conflicts_with = "prefer", help_heading = "Who holds it")]
    pub(crate) no_prefer: bool,
}

/// An interface on one member, as it is typed.
fn on_member(text: &str, input: &mut Input) -> Option<v1::InterfaceOverride> {
    let Some((member, interface)) = text.split_once('=') else {
        input.refuse("--interface-on", text, ON_MEMBER_RULE);
        return None;
    };
    let member = input.member("--interface-on", member);
    Some(v1::InterfaceOverride { member, interface: input.interface("--interface-on", interface) })
}

/// Notes every member that a list names again.
fn refuse_twice<'a>(label: &str, members: impl Iterator<Item = &'a String>, input: &mut Input) {
    let mut named = std::collections::BTreeSet::new();
    for member in members {
        if !named.insert(member) {
            let name = member.strip_prefix("members/").unwrap_or(member);
            input.refuse(label, name, "must not be named twice");
        }
    }
}

impl VipSettings {
    /// What is given, and the paths of it.
    pub(super) fn change(&self, emptied: &VipEmptied, input: &mut Input) -> GivenChange<v1::Vip> {
        let mut mask = FieldMaskBuilder::default();
        let interface = match &self.interface {
            Some(name) => Some(input.interface("--interface", name)),
            None => emptied.no_interface.then(String::new),
        };
        let overrides: Vec<_> = self.interface_on.iter().filter_map(|text| on_member(text, input)).collect();
        refuse_twice("--interface-on", overrides.iter().map(|one| &one.member), input);
        let named = emptied.no_interface_on || !self.interface_on.is_empty();
        let preferred: Vec<String> = self.prefer.iter().map(|name| input.member("--prefer", name)).collect();
        refuse_twice("--prefer", preferred.iter(), input);
        let prefers = emptied.no_prefer || !self.prefer.is_empty();
        let delay = self.preference_delay.as_ref().map(|text| input.duration("--preference-delay", text));
        let resource = v1::Vip {
            interface: mask.set("interface", interface).unwrap_or_default(),
            interface_overrides: mask
                .set("interface_overrides", named.then_some(overrides))
                .unwrap_or_default(),
            on_quorum_loss: number(mask.set("on_quorum_loss", self.on_quorum_loss)),
            preferred: mask.set("preferred", prefers.then_some(preferred)).unwrap_or_default(),
            preference_delay: mask.set("preference_delay", delay),
            ..v1::Vip::default()
        };
        GivenChange { resource, paths: mask.paths, ..GivenChange::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const PATHS: [&str; 5] =
        ["interface", "interface_overrides", "on_quorum_loss", "preferred", "preference_delay"];

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn what_is_given_has_its_path_and_nothing_else() {
        let mut input = Input::default();
        let settings = VipSettings {
            interface: Some("eth0".to_owned()),
            interface_on: texts(&["m2=eth1", "m3=bond0.100"]),
            on_quorum_loss: Some(OnQuorumLoss::Hold),
            prefer: texts(&["m1", "m2"]),
            preference_delay: Some("30s".to_owned()),
        };
        let GivenChange { resource: vip, paths, .. } = settings.change(&VipEmptied::default(), &mut input);
        assert_eq!(paths, PATHS);
        assert_eq!((vip.interface.as_str(), vip.on_quorum_loss()), ("eth0", v1::OnQuorumLoss::Hold));
        assert_eq!(vip.interface_overrides[1].member, "members/m3");
        assert_eq!(vip.interface_overrides[1].interface, "bond0.100");
        assert_eq!(vip.preferred, ["members/m1", "members/m2"]);
        assert_eq!(vip.preference_delay.unwrap().seconds, 30);
        assert!(VipSettings::default().change(&VipEmptied::default(), &mut input).paths.is_empty());
        input.finish().unwrap();
    }

    #[test]
    fn settings_are_taken_away_when_told_so() {
        let mut input = Input::default();
        let emptied = VipEmptied { no_interface: true, no_interface_on: true, no_prefer: true };
        let GivenChange { resource: vip, paths, .. } = VipSettings::default().change(&emptied, &mut input);
        assert_eq!(paths, ["interface", "interface_overrides", "preferred"]);
        assert_eq!(vip, v1::Vip::default());
        input.finish().unwrap();
    }

    #[test]
    fn every_mistake_is_told() {
        let mut input = Input::default();
        let settings = VipSettings {
            interface: Some("eth0:1".to_owned()),
            interface_on: texts(&["m1", "m2=a/b", "m3=eth0", "m3=eth1"]),
            prefer: texts(&["m1", "m 2", "m1"]),
            preference_delay: Some("10".to_owned()),
            ..VipSettings::default()
        };
        settings.change(&VipEmptied::default(), &mut input);
        let error = input.finish().unwrap_err();
        let text = error.render();
        assert_eq!((error.exit().code(), text.lines().count()), (2, 7), "{text}");
        assert!(text.contains("--prefer \"m1\": must not be named twice"), "{text}");
    }
}
