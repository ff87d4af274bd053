//! README's section on containers, command by command.

use std::time::Duration;

use trestle_testkit::{Process, Section, wait_for};

use crate::Bed;
use crate::bed::{LIMIT, root};

/// The lines of a block that begin with this, as one script.
fn lines(code: &str, wanted: impl Fn(&str) -> bool) -> String {
    let found: String = code.lines().filter(|line| wanted(line)).map(|line| format!("{line}\n")).collect();
    assert!(!found.is_empty(), "README has no such line:\n{code}");
    found
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let Some(bed) = Bed::new() else { return };
    let code = Section::read(&root().join("README.md"), "Three nodes in containers").code("sh");
    let function = lines(&code, |line| line.starts_with("trestle() {"));
    let run = |script: &str| {
        bed.stack.shell(&format!("{function}{script}")).unwrap_or_else(|why| panic!("{script}\n{why}"))
    };
    // How it comes up is as every test's stack does.
    for line in ["cargo xtask image", "export COMPOSE_FILE=deploy/compose.yaml", "docker compose up --detach"]
    {
        lines(&code, |found| found == line);
    }
    let created = run(&lines(&code, |line| line.starts_with("trestle pool create")));
    assert!(created.contains("created"), "{created}");
    let mut watching =
        bed.stack.command(&lines(&code, |line| line.starts_with("docker compose logs --follow")));
    let log = tempfile::NamedTempFile::new().unwrap();
    let _watching = Process::spawn("docker compose logs", &mut watching, log.path());
    let seen = |words: &str| {
        wait_for(&format!("{words:?} in the client's log"), LIMIT, || {
            let text = std::fs::read_to_string(log.path()).unwrap();
            if text.contains(words) { Ok(()) } else { Err(text) }
        });
    };
    let holder = bed.settle();
    seen(&format!("answers come through {}", bed.stack.address(holder)));
    let named = |script: String| script.replace("m1", holder);
    run(&named(lines(&code, |line| line.starts_with("docker compose kill"))));
    let next = bed.served(|member| member != holder);
    seen(&format!("answers come through {} after", bed.stack.address(next)));
    let listed = run(&lines(&code, |line| line == "trestle vip list"));
    assert!(listed.contains(next), "{next} is not in {listed}");
    run(&named(lines(&code, |line| line.starts_with("docker compose start"))));
    bed.settle();
    let network = |script: String| {
        script.replace("m2", next).replace(" trestle \"", &format!(" {} \"", bed.stack.name))
    };
    run(&network(lines(&code, |line| line.starts_with("docker network disconnect"))));
    let third = bed.served(|member| member != next);
    assert_ne!(third, next);
    run(&network(lines(&code, |line| line.starts_with("docker network connect"))));
    bed.settle();
    wait_for("a status without problems", LIMIT, || {
        match run(&lines(&code, |line| line == "trestle status")) {
            said if said.contains("no problems") => Ok(()),
            said => Err(said),
        }
    });
    run(&lines(&code, |line| line.starts_with("docker compose down")));
    wait_for("an end of all containers", Duration::from_secs(60), || {
        let left = bed.stack.shell("docker compose ps -q")?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
