//! Members that are run by hand: with fewer rights than they ask for, or in a network that is not theirs alone.

use std::process::Command;

use trestle_testkit::containers::{docker, is_available};
use trestle_testkit::wait_for;

use crate::bed::{LIMIT, alone, image};

#[test]
fn an_ordinary_user_without_rights_in_little_memory_serves_all_but_virtual_ips() {
    if !is_available() {
        return;
    }
    let _alone = alone();
    let image = image();
    let name = format!("trestle-test-{}-user", std::process::id());
    let run = "run --detach --user 65532:65532 --read-only --cap-drop ALL --security-opt no-new-privileges --memory 64m \
               --tmpfs /run/trestle:mode=1777 --env TRESTLE_INSECURE=true --name";
    let volume = format!("{name}:/var/lib/trestle");
    docker(&[&run.split_whitespace().collect::<Vec<_>>()[..], &[&name, "--volume", &volume, image]].concat())
        .unwrap();
    let _removed = Removed(name.clone());
    let trestle = |arguments: &[&str]| docker(&[&["exec", &name, "trestle"], arguments].concat());
    wait_for("a member that answers", LIMIT, || trestle(&["cluster", "bootstrap", "--if-absent"]));
    wait_for("a healthy container", LIMIT, || {
        match docker(&["inspect", "--format", "{{.State.Health.Status}}", &name])?.as_str() {
            "healthy" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    trestle(&["pool", "create", "web", "--health", "none"]).unwrap();
    trestle(&["listener", "create", "web", "--bind", "0.0.0.0:8000", "--pool", "web", "--wait"]).unwrap();
    let address = docker(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &name]).unwrap();
    let subnet = address.rsplit_once('.').unwrap().0;
    let refused = trestle(&["vip", "create", &format!("{subnet}.250/24"), "--name", "front"]);
    let said = refused.unwrap_or_else(|refusal| refusal) + &trestle(&["status"]).unwrap_or_else(|said| said);
    assert!(said.contains("CAP_NET_ADMIN"), "it does not say what is missing: {said}");
    let state = "{{.State.Running}} {{.State.OOMKilled}} {{.RestartCount}}";
    assert_eq!(docker(&["inspect", "--format", state, &name]).unwrap(), "true false 0");
}

#[test]
fn a_network_that_outlives_its_member_keeps_no_virtual_ip() {
    if !is_available() {
        return;
    }
    let _alone = alone();
    let (image, base) = (image(), format!("trestle-test-{}-shared", std::process::id()));
    let (owner, member) = (format!("{base}-owner"), format!("{base}-member"));
    docker(&["run", "--detach", "--no-healthcheck", "--name", &owner, image, "sample-backend", "owner"])
        .unwrap();
    let (_owner, _member) = (Removed(owner.clone()), Removed(member.clone()));
    // As in a pod, or on the host's own network.
    let run = format!(
        "run --detach --cap-drop ALL --cap-add NET_ADMIN --cap-add NET_RAW --env TRESTLE_INSECURE=true --network container:{owner} --name"
    );
    docker(&[&run.split_whitespace().collect::<Vec<_>>()[..], &[&member, image]].concat()).unwrap();
    let trestle = |arguments: &[&str]| docker(&[&["exec", &member, "trestle"], arguments].concat());
    wait_for("a member that answers", LIMIT, || trestle(&["cluster", "bootstrap", "--if-absent"]));
    let own = docker(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &owner]).unwrap();
    let vip = format!("{}.250", own.rsplit_once('.').unwrap().0);
    trestle(&["vip", "create", &format!("{vip}/24"), "--name", "front", "--interface", "eth0"]).unwrap();
    let process = docker(&["inspect", "--format", "{{.State.Pid}}", &owner]).unwrap();
    let is_there = || {
        let shown = Command::new("nsenter")
            .args(["-t", &process, "-n", "ip", "-oneline", "address"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&shown.stdout).contains(&vip)
    };
    let becomes = |wanted: bool| {
        wait_for(&format!("{vip}: {wanted}"), LIMIT, || {
            if is_there() == wanted { Ok(()) } else { Err(!wanted) }
        });
    };
    becomes(true);
    // It gets no signal that it could heed.
    docker(&["rm", "--force", &member]).unwrap();
    becomes(false);
}

/// A container that is removed when this is dropped.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", &self.0]);
        let _ = docker(&["volume", "rm", "--force", &self.0]);
    }
}
