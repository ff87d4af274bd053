//! The image: what runs in it and how an engine sees that it is well.

use trestle_testkit::containers::{docker, is_available};

use crate::bed::image;

#[test]
fn the_image_has_both_programs_and_says_how_it_is() {
    if !is_available() {
        return;
    }
    let run = |arguments: &[&str]| {
        docker(&[&["run", "--rm", "--no-healthcheck", "--network", "none"], arguments].concat())
    };
    let daemon = run(&[image(), "--version"]).unwrap();
    let command = run(&["--entrypoint", "trestle", image(), "--version"]).unwrap();
    assert!(daemon.starts_with("trestled ") && command.starts_with("trestle "), "{daemon} {command}");
    assert_eq!(daemon.split(' ').nth(1), command.split(' ').nth(1));
    assert!(run(&[image(), "founding-token"]).unwrap().starts_with("trestle-founding1."));
    let refused = run(&[image(), "healthcheck"]).unwrap_err();
    assert!(
        refused.contains("127.0.0.1:7482") && refused.contains("is trestled running there?"),
        "{refused}"
    );
    let config = docker(&["image", "inspect", "--format", "{{json .Config}}", image()]).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["Entrypoint"], serde_json::json!(["/trestled"]));
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "/trestled", "healthcheck"]));
}

#[test]
#[ignore = "of the shipped image alone: cargo xtask image, and TRESTLE_TEST_IMAGE=trestle"]
fn the_shipped_image_is_small_and_says_what_it_is() {
    if !is_available() {
        return;
    }
    let size: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", image()]).unwrap().parse().unwrap();
    assert!(size <= 30_000_000, "{size} bytes");
    let labels = docker(&["image", "inspect", "--format", "{{json .Config.Labels}}", image()]).unwrap();
    for label in ["title", "version", "revision", "licenses"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}")), "no {label} in {labels}");
    }
}
