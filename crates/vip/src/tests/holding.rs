//! Claiming, renewing, releasing.

use std::time::{Duration, Instant};

use trestle_testkit::wait_for;

use super::lab::{LIMIT, Lab, expect_event, lease, settings, vip};
use super::probing::{Prober, Question, last_answered};
use crate::nft::Nft;
use crate::route::RouteSocket;
use crate::{Fence, KernelEvent, Lease, LinuxKernel, VipError};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_claimed_address_is_served_and_a_released_one_is_silent_at_once() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    for text in ["10.77.0.50/24", "10.77.0.51/32", "fd77::50/64", "fd77::51/128"] {
        let vip = vip(text);
        let lease = lease(LONG);
        kernel.claim(&vip, &lease).unwrap();
        let facts = kernel.facts();
        assert_eq!(facts.fence, Fence::Full { announcements: true });
        assert!(facts.vips[0].address_present && facts.vips[0].link_up);
        assert_eq!(facts.vips[0].fence_until, lease.until());
        kernel.announce(vip.address).unwrap();
        wait_for("the announcement", LIMIT, || kernel.facts().vips[0].last_announcement.ok_or("none so far"));

        let probers = [Question::Echo, Question::Owner]
            .map(|question| Prober::start(&lab.client, vip.address, question));
        probers.iter().for_each(Prober::wait_for_answer);
        kernel.release(vip.address).unwrap();
        let released = Instant::now();
        for prober in probers {
            prober.wait_for_questions(20);
            let last = last_answered(&prober.finish()).unwrap();
            assert!(last <= released, "{text}: answered {:?} after the release", last - released);
        }
        assert!(kernel.facts().vips.is_empty());
        wait_for("the removal", LIMIT, || {
            if lab.members[0].has(&vip.address.to_string()) { Err("it is there") } else { Ok(()) }
        });
        let unfenced = || lab.members[0].run(|| Nft::open("trestle_member").unwrap().leftovers().unwrap());
        wait_for("the end of its fence", LIMIT, || {
            let left = unfenced();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}

#[test]
fn renewing_loses_no_packet() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    // Long enough that a busy test machine does not end it; each extension is still one replacement in the kernel.
    let duration = Duration::from_secs(5);
    let lease = lease(duration);
    let vips = ["10.77.0.50/24", "fd77::50/64"].map(vip);
    for vip in &vips {
        kernel.claim(vip, &lease).unwrap();
    }
    let probers = vips.each_ref().map(|vip| Prober::start(&lab.client, vip.address, Question::Echo));
    probers.iter().for_each(Prober::wait_for_answer);
    let armed = kernel.facts().punctuality.ticks;
    wait_for("150 renewals", LIMIT, || {
        lease.extend(Instant::now() + duration);
        let ticks = kernel.facts().punctuality.ticks - armed;
        if ticks >= 150 { Ok(()) } else { Err(format!("{ticks} ticks")) }
    });
    assert!(kernel.facts().vips.iter().all(|facts| facts.fence_until > Some(Instant::now())));
    for prober in probers {
        let asked = prober.finish();
        let answered: Vec<bool> = asked.iter().map(|asked| asked.answered).collect();
        let first = answered.iter().position(|answered| *answered).unwrap();
        let lost = answered[first..].iter().filter(|answered| !**answered).count();
        assert_eq!(lost, 0, "of {} questions", answered.len());
        println!("{} questions, none lost; {:?}", answered.len(), kernel.facts().punctuality);
    }
}

#[test]
fn a_lease_that_runs_out_ends_service_and_one_that_goes_on_resumes_it() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    let vip = vip("10.77.0.50/24");
    let lease = lease(Duration::from_secs(1));
    let until = lease.until().unwrap();
    kernel.claim(&vip, &lease).unwrap();
    let prober = Prober::start(&lab.client, vip.address, Question::Echo);
    prober.wait_for_answer();
    expect_event(&events, "the end of the lease", |event| *event == KernelEvent::Lapsed(vip.address));
    wait_for("the removal of the address", LIMIT, || {
        if kernel.facts().vips[0].address_present { Err("it is still there") } else { Ok(()) }
    });
    prober.wait_for_questions(20);
    let last = last_answered(&prober.finish()).unwrap();
    assert!(last <= until + Duration::from_millis(20), "{:?} after the deadline", last - until);

    lease.extend(Instant::now() + LONG);
    expect_event(&events, "the return of the lease", |event| *event == KernelEvent::Resumed(vip.address));
    kernel.restore(vip.address).unwrap();
    Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
}

#[test]
fn several_addresses_share_a_lease_or_have_their_own() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    let (shared, own) = (lease(LONG), lease(Duration::from_millis(300)));
    let vips = ["10.77.0.50/24", "10.77.0.51/24", "fd77::50/64"].map(vip);
    kernel.claim(&vips[0], &shared).unwrap();
    kernel.claim(&vips[1], &own).unwrap();
    kernel.claim(&vips[2], &shared).unwrap();
    expect_event(&events, "the end of one", |event| *event == KernelEvent::Lapsed(vips[1].address));
    for served in [&vips[0], &vips[2]] {
        Prober::start(&lab.client, served.address, Question::Echo).wait_for_answer();
    }
    assert!(!lab.members[0].has("10.77.0.51"));
    drop(kernel);
    assert!(!lab.members[0].has("10.77.0.50") && !lab.members[0].has("fd77::50"));
    let left = lab.members[0].run(|| Nft::open("trestle_member").unwrap().leftovers().unwrap());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_move_is_followed_by_clients_at_once() {
    let Some(lab) = Lab::build(2) else { return };
    let kernels = [0, 1].map(|at| lab.members[at].open("member").0);
    let lease = lease(LONG);
    for text in ["10.77.0.50/24", "fd77::50/64"] {
        let vip = vip(text);
        kernels[0].claim(&vip, &lease).unwrap();
        let prober = Prober::start(&lab.client, vip.address, Question::Echo);
        prober.wait_for_answer();
        for round in 0..6 {
            let start = Instant::now();
            kernels[round % 2].release(vip.address).unwrap();
            let released = start.elapsed();
            kernels[(round + 1) % 2].claim(&vip, &lease).unwrap();
            kernels[(round + 1) % 2].announce(vip.address).unwrap();
            println!("{text}: released after {released:?}, moved after {:?}", start.elapsed());
            // The client's cache still names the one before, until the announcement.
            prober.wait_for_answer();
        }
        kernels[0].release(vip.address).unwrap();
    }
}

#[test]
fn connections_of_the_holder_keep_their_own_source_address() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    // Nearer to the client's address than the member's own, so that it would be chosen (RFC 6724 rule 8).
    for (text, client, own) in
        [("fd77::101/64", "[fd77::100]:9", "fd77::1"), ("10.77.0.101/24", "10.77.0.100:9", "10.77.0.1")]
    {
        kernel.claim(&vip(text), &lease(LONG)).unwrap();
        let source = lab.members[0].run(|| {
            let any = if client.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = std::net::UdpSocket::bind(any).unwrap();
            socket.connect(client).unwrap();
            socket.local_addr().unwrap().ip()
        });
        assert_eq!(source.to_string(), own);
    }
}

#[test]
fn an_address_that_is_claimed_again_at_once_is_fenced_again() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    let vip = vip("10.77.0.50/24");
    for _ in 0..20 {
        kernel.claim(&vip, &lease(LONG)).unwrap();
        kernel.release(vip.address).unwrap();
    }
    let short = lease(Duration::from_secs(1));
    kernel.claim(&vip, &short).unwrap();
    let prober = Prober::start(&lab.client, vip.address, Question::Owner);
    prober.wait_for_answer();
    expect_event(&events, "the end of the lease", |event| *event == KernelEvent::Lapsed(vip.address));
    prober.wait_for_questions(20);
    let last = last_answered(&prober.finish()).unwrap();
    assert!(last <= short.until().unwrap() + Duration::from_millis(20));
    assert!(
        lab.members[0].run(|| Nft::open("trestle_member").unwrap().leftovers().unwrap()) == [vip.address]
    );
}

#[test]
fn an_interface_is_found_by_its_network() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    let found = |address: &str| kernel.interface_for(address.parse().unwrap()).unwrap();
    assert_eq!(found("10.77.0.50").as_deref(), Some("eth0"));
    assert_eq!(found("fd77::50").as_deref(), Some("eth0"));
    assert_eq!(found("192.0.2.1"), None);
    lab.members[0].ip("link add link eth0 name upper0 type macvlan mode bridge");
    lab.members[0].ip("address add 10.77.0.33/27 dev upper0");
    assert_eq!(found("10.77.0.50").as_deref(), Some("upper0"));
}

/// Prints figures: `cargo test -p trestle-vip -- --ignored --nocapture figures`.
#[test]
#[ignore = "prints figures"]
fn figures_of_the_fence() {
    let Some(lab) = Lab::build(1) else { return };
    let (mut settings, _events) = settings("member");
    settings.real_time = true;
    let kernel = lab.members[0].run(|| LinuxKernel::open(settings).unwrap());
    for text in ["10.77.0.50/24", "fd77::50/64"] {
        let vip = vip(text);
        for question in [Question::Echo, Question::Owner] {
            let mut errors = Vec::new();
            for round in 0..50_u64 {
                let lease = lease(Duration::from_millis(280 + round));
                kernel.claim(&vip, &lease).unwrap();
                let prober = Prober::start(&lab.client, vip.address, question);
                let until = lease.until().unwrap();
                std::thread::sleep(
                    until.saturating_duration_since(Instant::now()) + Duration::from_millis(60),
                );
                let last = last_answered(&prober.finish());
                kernel.release(vip.address).unwrap();
                // A busy machine may not even have started to ask.
                let Some(last) = last else { continue };
                let micros = |from: Instant, to: Instant| i64::try_from((to - from).as_micros()).unwrap();
                errors.push(if last > until { micros(until, last) } else { -micros(last, until) });
            }
            errors.sort_unstable();
            println!(
                "{text} {question:?}: last answer against the deadline, us, {} rounds: {} / {} / {}",
                errors.len(),
                errors[0],
                errors[errors.len() / 2],
                errors[errors.len() - 1]
            );
        }
    }
    println!("{:?}", kernel.facts().punctuality);
}

#[test]
fn claims_that_cannot_be_served_say_why() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    let lease = lease(LONG);
    let refused = |text: &str, interface: &str, lease: &Lease| {
        let mut vip = vip(text);
        vip.interface = interface.to_owned();
        let error = kernel.claim(&vip, lease).unwrap_err();
        assert!(error.to_string().contains(&vip.address.to_string()), "{error}");
        error
    };
    assert!(matches!(refused("10.77.0.50/33", "eth0", &lease), VipError::Prefix(_)));
    assert!(matches!(refused("10.77.0.50/24", "eth9", &lease), VipError::NoInterface(_)));
    assert!(matches!(refused("10.77.0.50/24", "lo", &lease), VipError::NotEthernet(_)));
    assert!(matches!(refused("10.77.0.1/24", "eth0", &lease), VipError::Configured(_)));
    lab.members[0].ip("address add 10.77.0.70/24 dev eth0 valid_lft 600 preferred_lft 600");
    assert!(matches!(refused("10.77.0.70/24", "eth0", &lease), VipError::Configured(_)));
    assert!(matches!(refused("10.77.0.50/24", "eth0", &Lease::new()), VipError::Over(_)));
    kernel.claim(&vip("10.77.0.50/24"), &lease).unwrap();
    assert!(matches!(refused("10.77.0.50/24", "eth0", &lease), VipError::Held(_)));
    let unknown = kernel.release("10.77.0.51".parse().unwrap()).unwrap_err();
    assert!(matches!(unknown, VipError::NotHeld(_)), "{unknown}");
}

#[test]
fn stacked_interfaces_bridges_and_other_names_will_do() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    member.ip("link add link eth0 name upper0 type macvlan mode bridge");
    member.ip("link set upper0 up");
    member.ip("link property add dev eth0 altname a-rather-long-name-of-a-card");
    let (kernel, _events) = member.open("member");
    let on = |text: &str, interface: &str| {
        let mut vip = vip(text);
        vip.interface = interface.to_owned();
        kernel.claim(&vip, &lease(LONG)).unwrap();
        Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
    };
    on("10.77.0.50/24", "upper0");
    on("10.77.0.51/24", "a-rather-long-name-of-a-card");
    kernel.release("10.77.0.50".parse().unwrap()).unwrap();
    kernel.release("10.77.0.51".parse().unwrap()).unwrap();
    // A bridge with the card as its port, as container hosts have it.
    member.ip("link del upper0");
    member.ip("link add br1 type bridge forward_delay 0");
    member.ip("address del 10.77.0.1/24 dev eth0");
    member.ip("link set br1 up");
    member.ip("link set eth0 master br1");
    // A virtual IP brings no route to its clients.
    member.ip("address add 10.77.0.1/24 dev br1");
    on("10.77.0.52/24", "br1");
}

#[test]
fn without_nftables_the_lifetime_of_the_address_is_the_fence() {
    let Some(lab) = Lab::build(1) else { return };
    let (settings, events) = settings("member");
    let kernel = lab.members[0].run(|| {
        LinuxKernel::start(settings, RouteSocket::open().unwrap(), Err("switched off".to_owned())).unwrap()
    });
    let facts = kernel.facts();
    assert_eq!(facts.fence, Fence::Degraded { why: "switched off".to_owned() });
    let vip = vip("10.77.0.50/24");
    let short = kernel.claim(&vip, &lease(Duration::from_millis(900))).unwrap_err();
    assert!(short.to_string().contains("longer lease"), "{short}");
    let lease = lease(Duration::from_secs(3));
    kernel.claim(&vip, &lease).unwrap();
    let shown = kernel.facts().vips[0].fence_until.unwrap();
    assert!(shown <= lease.until().unwrap() + facts.fence.error());
    kernel.quiesce(Duration::from_secs(3)).unwrap();
    let prober = Prober::start(&lab.client, vip.address, Question::Echo);
    prober.wait_for_answer();
    expect_event(&events, "the end of the lease", |event| *event == KernelEvent::Lapsed(vip.address));
    wait_for("silence", LIMIT, || {
        prober.wait_for_questions(3);
        if lab.members[0].has("10.77.0.50") { Err("the address is there") } else { Ok(()) }
    });
    let last = last_answered(&prober.finish()).unwrap();
    assert!(last <= lease.until().unwrap() + facts.fence.error());
}
