//! Others change the fence: it is noticed, told, and put back at once, and what is open stays open meanwhile.

use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use trestle_testkit::{has_tools, wait_for};

use super::lab::{Host, LIMIT, Lab, expect_event, lease, vip};
use super::probing::{Prober, Question, last_answered};
use crate::nft::Nft;
use crate::{KernelEvent, Lease, LinuxKernel};

const LONG: Duration = Duration::from_secs(60);
const V4: &str = "10.77.0.50/24";
const V6: &str = "fd77::50/64";

fn nft(host: &Host, input: &str) -> String {
    let output = host.run(|| Command::new("nft").arg(input).output().unwrap());
    assert!(output.status.success(), "nft {input}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn rebuilt(events: &Receiver<KernelEvent>, what: &str) -> String {
    let event = expect_event(events, what, |event| matches!(event, KernelEvent::FenceRebuilt(_)));
    let KernelEvent::FenceRebuilt(found) = event else { unreachable!() };
    found
}

/// A member of a lab that serves both addresses.
struct Serving {
    lab: Lab,
    kernel: LinuxKernel,
    events: Receiver<KernelEvent>,
    lease: Lease,
}

impl Serving {
    /// In a lab of so many members; `None` where labs cannot be built, or without the command that changes fences.
    fn build(members: u32) -> Option<Self> {
        let lab = Lab::build(members)?;
        if !has_tools(&["nft"]) {
            return None;
        }
        let (kernel, events) = lab.members[0].open("member");
        let lease = lease(LONG);
        for text in [V4, V6] {
            kernel.claim(&vip(text), &lease).unwrap();
        }
        Some(Self { lab, kernel, events, lease })
    }
}

/// Claims both addresses anew for a short while, and checks that the fence keeps its end.
fn expect_silence_after_the_lease(lab: &Lab, kernel: &LinuxKernel) {
    let short = Lease::new();
    let until = Instant::now() + Duration::from_secs(1);
    short.extend(until);
    for text in [V4, V6] {
        kernel.release(vip(text).address).unwrap();
        kernel.claim(&vip(text), &short).unwrap();
    }
    for (text, question) in
        [(V4, Question::Echo), (V4, Question::Owner), (V6, Question::Echo), (V6, Question::Owner)]
    {
        let prober = Prober::start(&lab.client, vip(text).address, question);
        wait_for("the end of the lease", LIMIT, || {
            if Instant::now() > until + Duration::from_millis(50) { Ok(()) } else { Err("it runs") }
        });
        prober.wait_for_questions(10);
        if let Some(last) = last_answered(&prober.finish()) {
            assert!(last <= until + Duration::from_millis(20), "{:?} after the deadline", last - until);
        }
    }
}

#[test]
fn whatever_is_changed_is_noticed_told_and_put_back() {
    let Some(Serving { lab, kernel, events, .. }) = Serving::build(1) else { return };
    let member = &lab.members[0];
    let table = "inet trestle_member";
    let changes = [
        format!("flush table {table}"),
        format!("flush chain {table} out"),
        format!("flush chain {table} in; delete chain {table} in"),
        format!("insert rule {table} in accept"),
        format!("add rule {table} out drop"),
        format!("add chain {table} more {{ type filter hook input priority -400; policy drop; }}"),
        format!("add chain {table} in {{ policy drop; }}"),
        format!("add table {table} {{ flags dormant; }}"),
        format!("delete element {table} vips4 {{ 10.77.0.50 }}"),
        format!("add element {table} vips6 {{ fd77::51 }}"),
        format!("delete element {table} lease4 {{ 10.77.0.50 }}"),
        format!("add element {table} lease6 {{ fd77::51 }}"),
        format!("add element {table} quiet4 {{ 10.77.0.50 timeout 50s }}"),
        "delete element arp trestle_member vips4 { 10.77.0.50 }".to_owned(),
        "flush table netdev trestle_member".to_owned(),
        "delete table arp trestle_member".to_owned(),
        "delete table netdev trestle_member".to_owned(),
        format!("delete table {table}"),
        "flush ruleset".to_owned(),
    ];
    for (number, change) in (1..).zip(&changes) {
        nft(member, change);
        let changed = Instant::now();
        println!("{change}: {} after {:?}", rebuilt(&events, change), changed.elapsed());
        let facts = kernel.facts();
        assert!(facts.tampering.repairs >= number, "{facts:?}");
        assert!(facts.tampering.last_repair.is_some() && facts.tampering.failing.is_none(), "{facts:?}");
        for text in [V4, V6] {
            Prober::start(&lab.client, vip(text).address, Question::Echo).wait_for_answer();
        }
    }
    expect_silence_after_the_lease(&lab, &kernel);
}

#[test]
fn what_is_open_stays_open_while_the_fence_is_put_back() {
    let Some(Serving { lab, events, kernel: _kernel, .. }) = Serving::build(1) else { return };
    let member = &lab.members[0];
    let probers = [V4, V6].map(|text| Prober::start(&lab.client, vip(text).address, Question::Echo));
    probers.iter().for_each(Prober::wait_for_answer);
    for change in ["flush ruleset", "flush table inet trestle_member", "flush ruleset"].repeat(5) {
        nft(member, change);
        rebuilt(&events, change);
    }
    for prober in probers {
        let asked = prober.finish();
        let first = asked.iter().position(|asked| asked.answered).unwrap();
        let lost = asked[first..].iter().filter(|asked| !asked.answered).count();
        assert_eq!(lost, 0, "of {} questions", asked.len());
    }
}

#[test]
fn an_address_that_was_quiet_when_it_was_released_is_no_change_of_others() {
    let Some(Serving { lab, kernel, events, .. }) = Serving::build(1) else { return };
    kernel.quiesce(LONG).unwrap();
    kernel.release(vip(V4).address).unwrap();
    // The comparison goes through IPv4 first.
    nft(&lab.members[0], "add element inet trestle_member vips6 { fd77::51 }");
    let found = rebuilt(&events, "the change");
    assert!(found.contains("vips6"), "{found}");
}

#[test]
fn a_fence_that_nobody_touches_is_let_be() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let (kernel, events) = member.open("member");
    let lease = lease(Duration::from_secs(5));
    for text in [V4, V6] {
        kernel.claim(&vip(text), &lease).unwrap();
    }
    // Another member beside it changes its own tables all the time.
    let (beside, _beside_events) = member.open("beside");
    beside.claim(&vip("10.77.0.60/24"), &lease).unwrap();
    member.ip("link set eth0 name wan0");
    let ticks = kernel.facts().punctuality.ticks;
    wait_for("renewals and a full look", LIMIT, || {
        lease.extend(Instant::now() + Duration::from_secs(5));
        let seen = kernel.facts().punctuality.ticks - ticks;
        if seen >= 600 { Ok(()) } else { Err(format!("{seen} ticks")) }
    });
    kernel.release(vip(V4).address).unwrap();
    kernel.claim(&vip(V6), &lease).unwrap_err();
    let tampered = events
        .try_iter()
        .filter(|event| matches!(event, KernelEvent::FenceRebuilt(_) | KernelEvent::FenceFailed(_)));
    assert_eq!(tampered.collect::<Vec<_>>(), []);
    assert_eq!(kernel.facts().tampering, crate::Tampering::default());
    assert_eq!(beside.facts().tampering, crate::Tampering::default());
}

#[test]
fn a_saved_ruleset_loads_again_elsewhere_and_here() {
    let Some(Serving { lab, kernel, events, lease }) = Serving::build(2) else { return };
    let member = &lab.members[0];
    nft(member, "add table inet of_the_host");
    kernel.quiesce(Duration::from_millis(500)).unwrap();
    let saved = nft(member, "list ruleset");
    let other = &lab.members[1];
    nft(other, &saved);
    assert!(nft(other, "list tables").contains("of_the_host"));
    // What is saved is left, and goes with the next start.
    let _next = other.open("next");
    let left = nft(other, "list tables");
    assert!(!left.contains("trestle_member") && left.contains("of_the_host"), "{left}");

    // As services do when they apply their file again: an older copy, whose leases have other ends.
    kernel.release(vip(V4).address).unwrap();
    wait_for("the end of its fence", LIMIT, || {
        let left = member.run(|| Nft::open("trestle_member").unwrap().leftovers().unwrap());
        if left.contains(&vip(V4).address) { Err("it is fenced") } else { Ok(()) }
    });
    nft(member, &format!("flush ruleset\n{saved}"));
    println!("{}", rebuilt(&events, "the repair"));
    Prober::start(&lab.client, vip(V6).address, Question::Echo).wait_for_answer();
    kernel.claim(&vip(V4), &lease).unwrap();
    // Added to what is there.
    nft(member, &saved);
    println!("{}", rebuilt(&events, "the repair"));
    expect_silence_after_the_lease(&lab, &kernel);
}

#[test]
fn changes_that_never_end_do_not_keep_the_fence_from_renewing() {
    let Some(Serving { lab, kernel, events, lease }) = Serving::build(1) else { return };
    let member = &lab.members[0];
    for _ in 0..30 {
        nft(member, "flush ruleset");
    }
    rebuilt(&events, "the repair");
    wait_for("the last repair", LIMIT, || {
        let fenced = member.run(|| Nft::open("trestle_member").unwrap().leftovers().unwrap());
        if fenced.contains(&vip(V4).address) { Ok(()) } else { Err(format!("{fenced:?}")) }
    });
    lease.extend(Instant::now() + LONG + LONG);
    wait_for("a renewal", LIMIT, || {
        let until = kernel.facts().vips[0].fence_until;
        if until == lease.until() { Ok(()) } else { Err(format!("{until:?}")) }
    });
}
