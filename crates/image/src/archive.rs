//! The archive: an OCI image layout, and `manifest.json` as `docker save` has it, over the same files.

use std::io::{self, Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::Builder;

use crate::Image;
use crate::config::config;
use crate::layer::{append, layer};

/// One file that is known by its digest.
struct Blob {
    bytes: Vec<u8>,
    hash: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes, hash }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hash)
    }

    /// What points at it (OCI image specification, descriptor.md).
    fn descriptor(&self, kind: &str) -> Value {
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "size": self.bytes.len(), "digest": self.digest()})
    }
}

/// Writes the archive; answers the digest of the image's configuration, which is its id.
pub(crate) fn write(image: &Image, to: impl Write) -> io::Result<String> {
    let layer = Blob::new(layer(&image.entries, image.time)?);
    let config = Blob::json(&config(image, &layer.digest()));
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("config.v1+json"),
        "layers": [layer.descriptor("layer.v1.tar")],
    }));
    let named = |name: &String| {
        let mut descriptor = manifest.descriptor("manifest.v1+json");
        // The whole name for containerd, and the tag for the others (annotations.md).
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        descriptor["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{name}"),
            "org.opencontainers.image.ref.name": tag,
        });
        descriptor
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": image.names.iter().map(named).collect::<Vec<_>>(),
    });
    let docker = json!([{"Config": config.path(), "RepoTags": image.names, "Layers": [layer.path()]}]);
    let mut tar = Builder::new(to);
    for blob in [&config, &layer, &manifest] {
        append(&mut tar, &blob.path(), &blob.bytes, image.time)?;
    }
    for (path, value) in [
        ("index.json", index),
        ("manifest.json", docker),
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
    ] {
        append(&mut tar, path, value.to_string().as_bytes(), image.time)?;
    }
    tar.into_inner()?.flush()?;
    Ok(config.digest())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn image(daemon: &std::path::Path) -> Image {
        Image {
            names: vec!["trestle:1".to_owned(), "trestle:latest".to_owned()],
            architecture: "amd64".to_owned(),
            time: 1_700_000_000,
            labels: vec![("org.opencontainers.image.version".to_owned(), "1".to_owned())],
            entries: Image::programs(daemon, daemon),
        }
    }

    fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let read = |entry: io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
            assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
            let (path, mut content) = (entry.path().unwrap().display().to_string(), Vec::new());
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn the_same_files_give_the_same_bytes_and_all_digests_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, age: u64| {
            let path = dir.path().join(name);
            std::fs::write(&path, "a program").unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age)).unwrap();
            let mut bytes = Vec::new();
            let digest = image(&path).write(&mut bytes).unwrap();
            (digest, bytes)
        };
        let (digest, bytes) = write("one", 1);
        assert_eq!(write("two", 2_000_000_000), (digest.clone(), bytes.clone()));
        let found = files(&bytes);
        for (path, content) in found.iter().filter(|(path, _)| path.starts_with("blobs/")) {
            assert_eq!(*path, Blob::new(content.clone()).path());
        }
        let docker: Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
        let index: Value = serde_json::from_slice(&found["index.json"]).unwrap();
        let blob = |digest: &Value| {
            &found[&format!("blobs/sha256/{}", digest.as_str().unwrap().trim_start_matches("sha256:"))]
        };
        let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0]["digest"])).unwrap();
        assert_eq!(manifest["config"]["digest"], digest);
        let config: Value = serde_json::from_slice(&found[docker[0]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!(blob(&manifest["config"]["digest"]), &found[docker[0]["Config"].as_str().unwrap()]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let inner = files(blob(&config["rootfs"]["diff_ids"][0]));
        assert_eq!(inner["trestled"], b"a program");
        assert!(inner.contains_key("var/lib/trestle/") && inner.contains_key("trestle"), "{inner:?}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = image(std::path::Path::new("/nowhere/trestled")).write(Vec::new()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/trestled"), "{error}");
    }
}
