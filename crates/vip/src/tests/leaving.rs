//! What members leave whose names are not known any more, and those that live beside one.

use std::process::Command;
use std::time::Duration;

use trestle_testkit::{has_tools, wait_for};

use super::agent::Agent;
use super::lab::{Host, LIMIT, Lab, expect_event, lease, settings, vip};
use super::probing::{Prober, Question};
use crate::nft::Nft;
use crate::{CleanedUp, KernelEvent, LinuxKernel, VipError, cleanup};

const LONG: Duration = Duration::from_secs(60);
const V4: &str = "10.77.0.50/24";
const V6: &str = "fd77::50/64";

/// Names of the tables of members on a host.
fn tables(host: &Host) -> Vec<String> {
    let found = host.run(|| Nft::open("").unwrap().tables("trestle_").unwrap());
    found.into_iter().map(|found| found.name).collect()
}

/// Tables that fence an address and whose process is gone.
fn leave_tables(host: &Host, name: &str, text: &str) {
    host.run(|| Nft::open(name).unwrap()).install(&[vip(text).address]).unwrap();
}

#[test]
fn what_a_member_of_another_name_left_is_removed_by_the_next() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    leave_tables(member, "trestle_long_ago", V4);
    let mut agent = Agent::start(member, &[V4, V6]);
    assert_eq!(tables(member), ["trestle_agent"], "it did not clean up itself");
    agent.kill();
    let (kernel, events) = member.open("fresh");
    for what in ["address 10.77.0.50/32", "address fd77::50/128", "table trestle_agent"] {
        let said = KernelEvent::LeftoverRemoved(what.to_owned());
        expect_event(&events, what, |event| *event == said);
    }
    assert!(!member.has("10.77.0.50") && !member.has("fd77::50"));
    assert_eq!(tables(member), ["trestle_fresh"]);
    for text in [V4, V6] {
        kernel.claim(&vip(text), &lease(LONG)).unwrap();
        Prober::start(&lab.client, vip(text).address, Question::Echo).wait_for_answer();
        assert_eq!(kernel.facts().vips.last().unwrap().shut_by, None);
    }
}

#[test]
fn what_comes_back_while_an_address_is_held_is_removed_at_once() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let (kernel, events) = member.open("fresh");
    kernel.claim(&vip(V4), &lease(LONG)).unwrap();
    for _ in 0..3 {
        leave_tables(member, "trestle_of_a_saved_ruleset", V4);
        expect_event(&events, "the removal", |event| matches!(event, KernelEvent::LeftoverRemoved(_)));
        Prober::start(&lab.client, vip(V4).address, Question::Echo).wait_for_answer();
        assert_eq!(tables(member), ["trestle_fresh"]);
        // Its own address is in those tables, too.
        assert!(member.has("10.77.0.50"));
    }
}

#[test]
fn a_fence_of_a_living_member_stays_and_what_it_stands_against_is_told() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let (other, events) = member.open("other");
    other.claim(&vip(V4), &lease(Duration::from_secs(1))).unwrap();
    expect_event(&events, "the end of its lease", |event| matches!(event, KernelEvent::Lapsed(_)));
    let (kernel, _events) = member.open("member");
    kernel.claim(&vip(V4), &lease(LONG)).unwrap();
    let why = wait_for("the word about it", LIMIT, || {
        kernel.facts().vips[0].shut_by.clone().ok_or("nothing is said")
    });
    let process = std::process::id().to_string();
    assert!(why.contains("trestle_other") && why.contains(&process), "{why}");
    let prober = Prober::start(&lab.client, vip(V4).address, Question::Echo);
    prober.wait_for_questions(5);
    assert!(prober.finish().iter().all(|asked| !asked.answered));
    drop(other);
    wait_for("the end of that", LIMIT, || match kernel.facts().vips[0].shut_by.clone() {
        None => Ok(()),
        Some(why) => Err(why),
    });
    // The other took the address of this machine with it.
    kernel.restore(vip(V4).address).unwrap();
    Prober::start(&lab.client, vip(V4).address, Question::Echo).wait_for_answer();
}

#[test]
fn one_name_is_had_once_in_a_network_namespace_and_again_when_its_process_is_dead() {
    let Some(lab) = Lab::build(2) else { return };
    let member = &lab.members[0];
    let mut agent = Agent::start(member, &[V4]);
    let refused = member.run(|| LinuxKernel::open(settings("agent").0).unwrap_err());
    assert!(matches!(&refused, VipError::Taken { table, .. } if table == "trestle_agent"), "{refused}");
    assert!(refused.to_string().contains("process"), "{refused}");
    let _elsewhere = lab.members[1].open("agent");
    Prober::start(&lab.client, vip(V4).address, Question::Echo).wait_for_answer();
    agent.kill();
    let _again = member.open("agent");
}

#[test]
fn cleanup_leaves_nothing_but_what_lives_and_what_is_not_ours() {
    let Some(lab) = Lab::build(1) else { return };
    if !has_tools(&["nft"]) {
        return;
    }
    let member = &lab.members[0];
    assert_eq!(member.run(|| cleanup().unwrap()), CleanedUp::default());
    for own in [
        "add table inet trestle_of_an_operator",
        "add table ip trestle_nat",
        "add set ip trestle_nat vips4 { type ipv4_addr; }",
    ] {
        assert!(member.run(|| Command::new("nft").arg(own).status().unwrap()).success(), "{own}");
    }
    let (living, _events) = member.open("living");
    living.claim(&vip("10.77.0.60/24"), &lease(LONG)).unwrap();
    let mut agent = Agent::start(member, &[V4, V6]);
    agent.kill();
    // Given to the host for good since, or added by it with the time that a lease of its DHCP server has left.
    leave_tables(member, "trestle_older", "10.77.0.70/24");
    member.ip("address add 10.77.0.70/24 dev eth0");
    member.ip("address add 10.77.0.71/24 dev eth0 valid_lft 30 preferred_lft 30");
    let done = member.run(|| cleanup().unwrap());
    for what in
        ["address 10.77.0.50/32", "address fd77::50/128", "table trestle_agent", "table trestle_older"]
    {
        assert!(done.removed.iter().any(|removed| removed == what), "{what} is not in {done:?}");
    }
    assert_eq!((done.removed.len(), done.living.len(), done.failed.len()), (4, 1, 0), "{done:?}");
    assert!(done.living[0].contains("trestle_living"), "{done:?}");
    for there in ["10.77.0.1", "fd77::1", "10.77.0.60", "10.77.0.70", "10.77.0.71"] {
        assert!(member.has(there), "{there} was taken away");
    }
    for served in ["10.77.0.60", "10.77.0.70"] {
        Prober::start(&lab.client, served.parse().unwrap(), Question::Echo).wait_for_answer();
    }
    let mut left = tables(member);
    left.sort();
    assert_eq!(left, ["trestle_living", "trestle_nat", "trestle_of_an_operator"]);
    assert_eq!(living.facts().tampering.repairs, 0);
}

#[test]
fn a_name_that_a_process_without_rights_took_stops_nobody() {
    let Some(lab) = Lab::build(1) else { return };
    if !has_tools(&["python3", "setpriv"]) {
        return;
    }
    let member = &lab.members[0];
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind('\\0trestle/trestle_member'); \
                  s.listen(); print('taken', flush=True); sys.stdin.read()";
    let mut squatter = member.run(|| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "/usr/bin/python3"])
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    });
    let mut said = [0; 6];
    std::io::Read::read_exact(squatter.stdout.as_mut().unwrap(), &mut said).unwrap();
    let (kernel, _events) = member.open("member");
    kernel.claim(&vip(V4), &lease(LONG)).unwrap();
    Prober::start(&lab.client, vip(V4).address, Question::Echo).wait_for_answer();
    drop(squatter.stdin.take());
    squatter.wait().unwrap();
}
