//! Driven from Python, with code generated from proto/, as an automation would do it.

use std::path::Path;
use std::process::Command;

use trestle_testkit::{Cluster, has_tools, python_with_grpc, tool};

use crate::{finish, trestled};

const TOP: &str = env!("CARGO_MANIFEST_DIR");

/// Python modules for the admin API, and for reflection and health as gRPC defines them.
fn generate(into: &Path) {
    let mut protoc = Command::new("protoc");
    protoc.current_dir(TOP).args(["-I", "proto", "-I", "tests/integration/automation"]);
    protoc.args(["-I", "/usr/include", "-I", "/usr/local/include"]);
    let plugin = tool("grpc_python_plugin").unwrap();
    protoc.arg(format!("--plugin=protoc-gen-grpc_python={}", plugin.display()));
    for option in ["--python_out", "--grpc_python_out"] {
        protoc.arg(format!("{option}={}", into.display()));
    }
    // What the messages are marked with; Python has it from googleapis-common-protos too.
    protoc.arg("proto/google/api/field_behavior.proto");
    for name in ["pool", "listener", "member", "cluster", "read", "vip"] {
        protoc.arg(format!("proto/trestle/v1/{name}.proto"));
    }
    protoc.arg("tests/integration/automation/reflection.proto");
    protoc.arg("tests/integration/automation/health.proto");
    finish(&mut protoc).expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_creates_updates_repeats_and_watches() {
    if !has_tools(&["protoc", "grpc_python_plugin"]) {
        return;
    }
    let Some(python) = python_with_grpc() else { return };
    let dir = tempfile::TempDir::new().unwrap();
    generate(dir.path());
    let mut cluster = Cluster::start(trestled(), 3).await;

    let mut script = Command::new(python);
    script.arg(format!("{TOP}/tests/integration/automation/automation.py"));
    script.args(cluster.members.iter().map(|member| member.admin().to_string()));
    let said = finish(script.env("PYTHONPATH", dir.path())).expect_success();
    assert!(said.ends_with("all steps passed\n"), "{said}");
    cluster.agreed().await;
}
