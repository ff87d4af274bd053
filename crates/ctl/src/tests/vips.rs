//! Virtual IPs and drained members.

use trestle_api::v1;

use super::fake::{Member, Script};
use super::sample::{sample_status, sample_vip, sample_vip_view};
use super::{Done, at, trestle};

fn json(done: &Done) -> serde_json::Value {
    assert_eq!(done.code, 0, "{}", done.err);
    serde_json::from_str(&done.out).unwrap()
}

fn held(holder: &str) -> v1::VipStatus {
    let views = ["m1", "m2"].map(|member| sample_vip_view("api", member, member == holder)).to_vec();
    v1::VipStatus { views, unreachable_members: vec![] }
}

#[test]
fn a_vip_is_sent_with_all_that_is_typed() {
    let member = Member::start(Script::default());
    let arguments = [
        &["vip", "create", "10.0.3.100/24", "--name", "api", "--interface", "eth0"][..],
        &["--interface-on", "m2=eth1,m3=bond0.100", "--on-quorum-loss", "hold"],
        &["--prefer", "m1,m2", "--preference-delay", "30s"],
    ];
    let done = trestle(&at(&member), &arguments.concat());
    assert_eq!((done.code, done.out.as_str()), (0, "vip api created (revision 15)\n"), "{}", done.err);
    let on = |member: &str, interface: &str| v1::InterfaceOverride {
        member: format!("members/{member}"),
        interface: interface.to_owned(),
    };
    let expected = v1::Vip {
        address: "10.0.3.100/24".to_owned(),
        interface: "eth0".to_owned(),
        interface_overrides: vec![on("m2", "eth1"), on("m3", "bond0.100")],
        on_quorum_loss: v1::OnQuorumLoss::Hold.into(),
        preferred: vec!["members/m1".to_owned(), "members/m2".to_owned()],
        preference_delay: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..v1::Vip::default()
    };
    assert_eq!(member.script.lock().unwrap().vips_created[0].vip, Some(expected));

    // The address is the name where none is given.
    let done = trestle(&at(&member), &["vip", "create", "2001:db8::100/64", "--dry-run"]);
    assert_eq!(done.out, "vip 2001-db8--100 would be created (dry run)\n", "{}", done.err);
    let request = member.script.lock().unwrap().vips_created[1].clone();
    assert_eq!((request.vip_id.as_str(), request.validate_only), ("2001-db8--100", true));

    let update = ["vip", "update", "api", "--no-prefer", "--interface-on", "m2=eth2", "--etag", "7"];
    let done = trestle(&at(&member), &update);
    assert_eq!(done.out, "vip api updated (revision 15)\n", "{}", done.err);
    let request = member.script.lock().unwrap().vips_updated[0].clone();
    assert_eq!(request.update_mask.unwrap().paths, ["interface_overrides", "preferred"]);
    let vip = request.vip.unwrap();
    assert_eq!((vip.name.as_str(), vip.etag.as_str(), vip.preferred.len()), ("vips/api", "7", 0));

    let done = trestle(&at(&member), &["vip", "rm", "api"]);
    assert_eq!(done.out, "vip api deleted (revision 17)\n", "{}", done.err);
    assert_eq!(member.script.lock().unwrap().vips_deleted[0].name, "vips/api");
}

#[test]
fn mistakes_are_told_together_and_nothing_is_sent() {
    let member = Member::start(Script::default());
    let wrong = ["vip", "create", "10.0.3.300/24", "--name", "a b", "--interface", "a/b", "--prefer", "m 1"];
    let done = trestle(&at(&member), &wrong);
    let labels: Vec<_> = done.err.lines().map(|l| l.split(' ').nth(1).unwrap_or_default()).collect();
    assert_eq!(
        (done.code, labels),
        (2, vec!["--interface", "--prefer", "ADDR/PREFIX", "--name"]),
        "{}",
        done.err
    );
    for (args, words) in [
        (vec!["create", "127.0.0.1/8"], "must be an address that other hosts reach"),
        (vec!["create", "2001:db8::/64"], "must be given, because this address makes no name"),
        (vec!["update", "api"], "trestle vip update --help"),
        (vec!["update", "api", "--prefer", "m1", "--no-prefer"], "cannot be used with"),
        (vec!["create", "10.0.3.100/24", "--on-quorum-loss", "keep"], "release, hold"),
        (vec!["move", "--to", "m 1"], "--to \"m 1\""),
    ] {
        let done = trestle(&at(&member), &[vec!["vip"], args.clone()].concat());
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
        assert!(done.err.contains(words), "{args:?}: {}", done.err);
    }
    let script = member.script.lock().unwrap();
    assert!(script.vips_created.is_empty() && script.vips_updated.is_empty() && script.moved.is_empty());
}

#[test]
fn a_list_shows_the_holder_by_the_kernels_words() {
    let member =
        Member::start(Script { vips: vec![sample_vip("api")], held: held("m2"), ..Script::default() });
    let json = json(&trestle(&at(&member), &["vip", "list", "-o", "json"]));
    let vip = &json[0];
    assert_eq!((&vip["name"], &vip["holder"]), (&"api".into(), &"m2".into()));
    assert_eq!(
        (&vip["views"][1]["fence_open_for"], &vip["views"][0]["holds"]),
        (&"212ms".into(), &false.into())
    );
    assert_eq!((vip["problems"].as_array().unwrap().len(), &vip["unreachable"]), (0, &serde_json::json!([])));
    let mut keys: Vec<&str> = vip.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "address",
            "etag",
            "holder",
            "holders",
            "interface",
            "interface_on",
            "name",
            "on_quorum_loss",
            "prefer",
            "preference_delay",
            "preference_delay_seconds",
            "problems",
            "revision",
            "unreachable",
            "views",
        ]
    );
    let done = trestle(&at(&member), &["vip", "get", "api"]);
    assert!(done.out.contains("\nHOLDER             m2\n"), "{}{}", done.out, done.err);
    assert_eq!(trestle(&at(&member), &["vip", "get", "web"]).code, 1);
}

#[test]
fn without_a_leader_a_list_says_so_and_shows_what_is_known() {
    let mut status = sample_status();
    status.members.iter_mut().skip(1).for_each(|member| member.reachable = false);
    let script = Script {
        vips: vec![sample_vip("api")],
        held: held("nobody"),
        status: Some(status),
        leaderless: true,
        ..Script::default()
    };
    let member = Member::start(script);
    let done = trestle(&at(&member), &["vip", "list"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(
        done.err,
        format!(
            "warning: no member could do it: {}: there is no leader now\n\
             read from m1 alone, at revision 12: may be stale\n",
            member.address
        )
    );
    let problem =
        "no member holds it: only 1 of 3 voters answer, and 2 are needed: bring back 1 of them (m2, m3)\n";
    assert!(done.out.ends_with(problem), "{}", done.out);
}

#[test]
fn moving_tells_the_new_holder_and_history_who_held_them() {
    let event = v1::VipEvent {
        time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        r#type: v1::VipEventType::Taken.into(),
        member: "members/m2".to_owned(),
        term: 4,
        reason: "moved by hand".to_owned(),
        vips: vec!["vips/api".to_owned()],
        index: 31,
    };
    let vips = vec![sample_vip("api")];
    let member = Member::start(Script { events: vec![event], vips, ..Script::default() });
    let done = trestle(&at(&member), &["vip", "move", "--to", "m2"]);
    assert_eq!(done.out, "m2 leads and holds the virtual IPs now (term 4)\n", "{}", done.err);
    let left = "2 connections through the virtual IPs were left behind on m1 and do not go on: their clients must connect \
                again\n";
    assert_eq!(done.err, left);
    assert_eq!(member.script.lock().unwrap().moved[0].to, "members/m2");
    member.script.lock().unwrap().vips.clear();
    let done = trestle(&at(&member), &["vip", "move"]);
    assert_eq!(done.out, "m2 leads now; there are no virtual IPs (term 4)\n", "{}", done.err);
    let answer = json(&trestle(&at(&member), &["vip", "move", "-o", "json"]));
    assert_eq!(
        answer,
        serde_json::json!({"holder": "m2", "term": 4, "former_holder": "m1", "connections_left": 2})
    );
    let done = trestle(&at(&member), &["vip", "history"]);
    assert!(done.out.contains("2023-11-14T22:13:20.000Z   m2       taken   4"), "{}{}", done.out, done.err);
    let done = trestle(&at(&member), &["vip", "history", "--local"]);
    assert_eq!(done.err, "read from m1 alone, at revision 12: may be stale\n");
}

#[test]
fn a_drain_tells_what_is_left_and_what_comes_next() {
    let member = Member::start(Script { connections: 7, ..Script::default() });
    let done = trestle(&at(&member), &["member", "drain", "m1", "--request-id", "mine"]);
    assert_eq!((done.code, done.out.as_str()), (0, "member m1 draining (revision 16)\n"));
    assert_eq!(
        done.err,
        "7 connections are left there: see \"trestle connection list --member m1\"; end the drain with \
         \"trestle member enable m1\"\n"
    );
    assert_eq!(member.script.lock().unwrap().drained, [("members/m1".to_owned(), "mine".to_owned())]);
    let done = trestle(&at(&member), &["member", "drain", "m1", "-o", "json"]);
    assert_eq!((json(&done)["draining"].clone(), done.err.as_str()), (true.into(), ""));
    let done = trestle(&at(&member), &["member", "enable", "m1"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("member m1 enabled (revision 16)\n", ""));
    assert_eq!(trestle(&at(&member), &["member", "drain", "m 1"]).code, 2);
}

#[test]
fn a_listener_is_sent_with_a_vips_name() {
    let member = Member::start(Script::default());
    let arguments = ["listener", "create", "front", "--bind", "api:443,10.0.3.100:80", "--pool", "web"];
    let done = trestle(&at(&member), &arguments);
    assert_eq!(done.code, 0, "{}", done.err);
    let listener = member.script.lock().unwrap().listened[0].listener.clone().unwrap();
    assert_eq!(listener.binds, ["vip:api:443", "10.0.3.100:80"]);
}

#[test]
fn a_move_is_waited_for_by_what_the_kernel_of_the_holder_says() {
    let mut held = held("m2");
    let member = Member::start(Script { held: held.clone(), ..Script::default() });
    let done = trestle(&at(&member), &["vip", "move", "--wait"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.ends_with("\nm2: serves api: address present, fence open\n"), "{}", done.err);

    for (fence_open_for, address_present, words) in
        [(None, true, "its fence is shut"), (None, false, "its address is not there")]
    {
        held.views[1] = v1::VipView {
            fence_open_for,
            address_present,
            problems: vec!["interface eth0 is down".to_owned()],
            ..sample_vip_view("api", "m2", false)
        };
        member.script.lock().unwrap().held = held.clone();
        let done = trestle(&at(&member), &["--timeout", "300ms", "vip", "move", "--wait"]);
        let error = format!(
            "\nerror: m2 leads and does not serve all virtual IPs: api: {words} (interface eth0 is down); see \"trestle vip \
             list\"\n"
        );
        assert!(done.code == 1 && done.err.ends_with(&error), "{}", done.err);
    }
}
