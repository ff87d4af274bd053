//! Owners and annotations.

use trestle_api::v1;

use super::fake::{Member, Script};
use super::sample::sample_pool;
use super::{at, trestle};

fn noted() -> v1::Pool {
    let notes = [("example.com/ticket", "OPS-12"), ("tier", "gold")];
    v1::Pool {
        owner: "team web".to_owned(),
        annotations: notes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..sample_pool("web")
    }
}

#[test]
fn a_new_resource_is_sent_with_its_owner_and_annotations() {
    let member = Member::start(Script::default());
    let arguments =
        ["--owner", "team web", "--annotation", "example.com/ticket=OPS-12", "--annotation", "tier=gold"];
    let done = trestle(&at(&member), &[&["pool", "create", "web"][..], &arguments].concat());
    assert_eq!(done.code, 0, "{}", done.err);
    let pool = member.script.lock().unwrap().created[0].pool.clone().unwrap();
    assert_eq!((pool.owner, pool.annotations), (noted().owner, noted().annotations));
    let done = trestle(&at(&member), &[&["vip", "create", "10.0.3.100/24"][..], &arguments].concat());
    assert_eq!(done.code, 0, "{}", done.err);
    let vip = member.script.lock().unwrap().vips_created[0].vip.clone().unwrap();
    assert_eq!((vip.owner, vip.annotations.len()), (noted().owner, 2));
}

#[test]
fn an_update_changes_annotations_that_are_named_and_only_as_they_were_read() {
    let member = Member::start(Script { pools: vec![noted()], ..Script::default() });
    let update = |args: &[&str]| {
        let done = trestle(&at(&member), &[&["pool", "update", "web"], args].concat());
        assert_eq!(done.code, 0, "{}", done.err);
        member.script.lock().unwrap().changed.pop().unwrap()
    };
    let request = update(&["--annotation", "tier-", "--annotation", "zone=b", "--on-down", "keep"]);
    assert_eq!(request.update_mask.unwrap().paths, ["on_down", "annotations"]);
    let pool = request.pool.unwrap();
    let keys: Vec<_> = pool.annotations.keys().map(String::as_str).collect();
    assert_eq!((keys, pool.etag.as_str()), (vec!["example.com/ticket", "zone"], "12"));

    let request = update(&["--owner", ""]);
    assert_eq!(request.update_mask.unwrap().paths, ["owner"]);
    assert_eq!(request.pool.unwrap().etag, "", "nothing was read");
}

#[test]
fn they_are_shown_with_their_resource_and_not_in_a_list() {
    let member = Member::start(Script { pools: vec![noted()], ..Script::default() });
    let shown = |args: &[&str]| trestle(&at(&member), args).out;
    let text = shown(&["pool", "get", "web"]);
    for line in [
        "OWNER               team web\n",
        "ANNOTATION          example.com/ticket=OPS-12\n",
        "ANNOTATION          tier=gold\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&shown(&["-o", "json", "pool", "get", "web"])).unwrap();
    assert_eq!((&json["owner"], &json["annotations"]["tier"]), (&"team web".into(), &"gold".into()));
    let list = shown(&["pool", "list"]);
    assert!(list.contains("web") && !list.contains("team") && !list.contains("gold"), "{list}");
}
