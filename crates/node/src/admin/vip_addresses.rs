//! Addresses that cannot be virtual IPs: those of members, and those that no member could hold.

use std::net::IpAddr;

use futures_util::future::join_all;
use tonic::Status;
use trestle_api::{convert, peer, status, v1};
use trestle_model::{Command, Document, Invalid, Violation, Vip, VipName, VipSpec, defaults};

use super::Admin;
use crate::vip_clash::addresses;

/// The interface that a virtual IP names for a member, and the field that does.
fn named<'a>(vip: &'a v1::Vip, member: &str) -> Option<(&'static str, &'a str)> {
    let here = vip.interface_overrides.iter().find(|one| one.member.strip_prefix("members/") == Some(member));
    match here {
        Some(here) => Some(("vip.interface_overrides", &here.interface)),
        None => Some(("vip.interface", vip.interface.as_str())).filter(|(_, name)| !name.is_empty()),
    }
}

/// What is wrong with a virtual IP that nobody could hold: its interfaces, where one is named for everybody who says why, or
/// else its address.
fn unfit(vip: &v1::Vip, problems: &[(String, String)]) -> Violation {
    let words = words(problems);
    let blamed: Option<Vec<_>> = problems.iter().map(|(member, _)| named(vip, member)).collect();
    match blamed.and_then(|blamed| blamed.into_iter().min()) {
        Some((field, interface)) => {
            let rule = format!("must be one that a member could hold {} on ({words})", vip.address);
            Violation::new(field, interface, rule)
        }
        None => violation("vip.address", vip, format!("must be one that a member could hold ({words})")),
    }
}

/// Members with their problems, those with the same one together: "m1, m2: why; m3: another".
fn words(problems: &[(String, String)]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (member, why) in problems {
        match groups.iter_mut().find(|(known, _)| known == why) {
            Some((_, members)) => members.push(member),
            None => groups.push((why, vec![member])),
        }
    }
    let each: Vec<String> =
        groups.iter().map(|(why, members)| format!("{}: {why}", members.join(", "))).collect();
    each.join("; ")
}

fn violation(field: &str, vip: &v1::Vip, rule: String) -> Violation {
    Violation::new(field, &vip.address, rule)
}

fn refused(found: Vec<Violation>) -> Status {
    status::invalid(&Invalid(found))
}

/// A virtual IP as members are asked about it.
fn candidate(vip: &v1::Vip) -> peer::VipCandidate {
    let overrides = vip.interface_overrides.iter().map(|one| {
        let member = one.member.strip_prefix("members/").unwrap_or(&one.member);
        (member.to_owned(), one.interface.clone())
    });
    peer::VipCandidate {
        address: vip.address.clone(),
        interface: vip.interface.clone(),
        interface_overrides: overrides.collect(),
    }
}

/// What the members say of an address.
struct Answers {
    /// The rule that it breaks.
    own: Option<String>,
    /// Who cannot hold it, and why.
    problems: Vec<(String, String)>,
    answered: usize,
}

/// The recorded addresses of the members: whose, which, and where.
type Recorded = Vec<(String, &'static str, Vec<IpAddr>)>;

impl Admin {
    async fn recorded(&self) -> Recorded {
        let known = self.local.known();
        let recorded = known.iter().flat_map(|member| {
            let spec = &member.spec;
            [(&spec.name, "peer", &spec.peer_address), (&spec.name, "admin", &spec.admin_address)]
        });
        let found =
            recorded.map(|(name, what, at)| async move { (name.to_string(), what, addresses(at).await) });
        join_all(found).await
    }

    /// Asks the members about a virtual IP.
    async fn answers(&self, recorded: &Recorded, vip: &v1::Vip, address: IpAddr) -> Answers {
        let is_it = |(_, _, found): &&(String, _, Vec<IpAddr>)| found.contains(&address);
        let mut answers = Answers { own: None, problems: Vec::new(), answered: 0 };
        if let Some((name, what, _)) = recorded.iter().find(is_it) {
            let rule =
                format!("must not be the {what} address of member \"{name}\": two hosts would answer for it");
            answers.own = Some(rule);
            return answers;
        }
        let vip_candidate = Some(candidate(vip));
        let ask = peer::ReportRequest { vip_candidate, no_digest: true, ..Default::default() };
        let (reports, _) = self.reports.ask_all(ask).await;
        answers.answered = reports.len();
        for (name, report) in &reports {
            let Some(fit) = &report.vip_fit else { continue };
            if !fit.own.is_empty() {
                let rule = format!("must not be an address that member \"{name}\" has: it is {}", fit.own);
                answers.own = Some(rule);
            }
            if !fit.problem.is_empty() {
                answers.problems.push((name.to_string(), fit.problem.clone()));
            }
        }
        answers
    }

    /// What is wrong with a virtual IP.
    async fn unfit(
        &self,
        recorded: &Recorded,
        vip: &v1::Vip,
        address: IpAddr,
        whole: bool,
    ) -> Option<Violation> {
        let answers = self.answers(recorded, vip, address).await;
        if let Some(rule) = answers.own {
            return Some(violation("vip.address", vip, rule));
        }
        // A member that does not answer, or does not say, might.
        let nobody = !answers.problems.is_empty() && answers.problems.len() >= answers.answered;
        (nobody && !whole).then(|| unfit(vip, &answers.problems))
    }

    /// Refuses virtual IPs of a command that are addresses of a member; and, where it is no whole document, those that no
    /// member could hold: in a document interfaces may come later, and the status names them. What a virtual IP has already is
    /// not judged again.
    pub(super) async fn refuse_unfit(&self, command: &Command) -> Result<(), Status> {
        let state = self.local.consensus.view().borrow().state.clone();
        let whole = matches!(command, Command::Restore { .. });
        let is_new = |name: &VipName, spec: &VipSpec| {
            state.vips.get(name).filter(|_| !whole).is_none_or(|vip| {
                let place =
                    |spec: &VipSpec| (spec.address, spec.interface.clone(), spec.interface_overrides.clone());
                place(&vip.spec) != place(spec)
            })
        };
        let asked = command.documents().filter_map(|document| match document {
            Document::Vip(name, spec) if is_new(name, spec) => Some((name.clone(), spec.clone())),
            _ => None,
        });
        let asked: Vec<_> = asked.take(defaults::VIPS_MAX).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let alone = !whole && asked.len() == 1;
        let recorded = self.recorded().await;
        let asked = asked.into_iter().map(|(name, spec)| {
            let recorded = &recorded;
            async move {
                let address = spec.address.ip;
                let vip = convert::vip(&Vip { name: name.clone(), spec, revision: 0 });
                let mut found = self.unfit(recorded, &vip, address, whole).await?;
                if !alone {
                    let field = found.field.strip_prefix("vip.").unwrap_or(&found.field);
                    found.field = format!("vips/{name}.{field}");
                }
                Some(found)
            }
        });
        let found: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        if found.is_empty() { Ok(()) } else { Err(refused(found)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(members: &[&str]) -> Vec<(String, String)> {
        members.iter().map(|member| ((*member).to_owned(), "why".to_owned())).collect()
    }

    #[test]
    fn the_field_that_nobody_could_hold_it_by_is_named() {
        let over = v1::InterfaceOverride { member: "members/m2".to_owned(), interface: "tun1".to_owned() };
        let vip = |interface: &str, overrides: &[&v1::InterfaceOverride]| v1::Vip {
            address: "10.0.3.100/24".to_owned(),
            interface: interface.to_owned(),
            interface_overrides: overrides.iter().map(|one| (*one).clone()).collect(),
            ..Default::default()
        };
        let blamed = |vip: v1::Vip, members: &[&str]| {
            let found = unfit(&vip, &problems(members));
            (found.field, found.value)
        };
        let is = |field: &str, value: &str| (field.to_owned(), value.to_owned());
        assert_eq!(blamed(vip("lo", &[]), &["m1", "m2"]), is("vip.interface", "lo"));
        assert_eq!(blamed(vip("lo", &[&over]), &["m1", "m2"]), is("vip.interface", "lo"));
        assert_eq!(blamed(vip("", &[&over]), &["m2"]), is("vip.interface_overrides", "tun1"));
        // Of the first member nothing but the address is to blame.
        assert_eq!(blamed(vip("", &[&over]), &["m1", "m2"]), is("vip.address", "10.0.3.100/24"));
        let rule = unfit(&vip("lo", &[]), &problems(&["m1", "m2"])).rule;
        assert_eq!(rule, "must be one that a member could hold 10.0.3.100/24 on (m1, m2: why)");
    }
}
