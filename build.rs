//! Compiles proto/ for crates/api, which names this script. protox needs no protoc on the machine.

use std::path::{Path, PathBuf};

const PROTO_ROOT: &str = "../../proto";

fn protos_below(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            protos_below(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO_ROOT}");
    let mut protos = Vec::new();
    // google/api is only imported.
    protos_below(&Path::new(PROTO_ROOT).join("trestle"), &mut protos)?;
    protos.sort();
    let descriptors = protox::compile(&protos, [PROTO_ROOT])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("trestle.bin"), prost::Message::encode_to_vec(&descriptors))?;

    // The admin API's own files and what they import, for reflection; peers and disk are nobody else's business.
    let public: Vec<_> =
        protos.iter().filter(|path| path.starts_with(Path::new(PROTO_ROOT).join("trestle/v1"))).collect();
    // Encoded by protox, because prost drops options that it does not know, such as which fields are output only.
    let mut reflected = protox::Compiler::new([PROTO_ROOT])?;
    reflected.include_imports(true).open_files(public)?;
    std::fs::write(out.join("trestle_v1.bin"), reflected.encode_file_descriptor_set())?;

    // Names of messages are part of a request's fingerprint.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    // Maps are written in the order of their keys, on every member and each time.
    config.btree_map(["."]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
