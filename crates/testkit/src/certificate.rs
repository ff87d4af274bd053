//! Certificates for servers under test, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What every key is: small, and quick to make.
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// A certificate and its key, in files.
#[derive(Debug)]
pub struct Certificate {
    dir: TempDir,
}

fn openssl(dir: &Path, arguments: &[&[&str]]) {
    let output = Command::new("openssl").args(arguments.concat()).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

impl Certificate {
    /// A self-signed one that is valid for 2 days, as control planes make them.
    ///
    /// # Panics
    /// When openssl fails.
    pub fn generate() -> Self {
        let dir = TempDir::new().unwrap();
        let name = ["-days", "2", "-subj", "/CN=controller", "-keyout", "key.pem", "-out", "cert.pem"];
        openssl(dir.path(), &[&["req", "-x509"], &KEY, &name]);
        Self { dir }
    }

    /// The certificate in PEM form.
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }
}

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority {
    own: Certificate,
}

impl Authority {
    /// One with a name of its own.
    ///
    /// # Panics
    /// When openssl fails.
    pub fn generate(name: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let subject = format!("/CN={name}");
        let name = ["-days", "30", "-subj", &subject, "-keyout", "key.pem", "-out", "cert.pem"];
        openssl(dir.path(), &[&["req", "-x509"], &KEY, &name]);
        Self { own: Certificate { dir } }
    }

    /// Its own certificate in PEM form, for those who trust it.
    pub fn cert(&self) -> PathBuf {
        self.own.cert()
    }

    /// Signs a server's certificate for these names, as in `IP:10.0.0.1,DNS:api.example`, valid for `days`.
    ///
    /// # Panics
    /// When openssl fails.
    pub fn sign(&self, names: &str, days: u32) -> Certificate {
        let dir = TempDir::new().unwrap();
        let extensions = format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(dir.path().join("extensions"), extensions).unwrap();
        let request = ["-subj", "/CN=server", "-keyout", "key.pem", "-out", "request.pem"];
        openssl(dir.path(), &[&["req", "-new"], &KEY, &request]);
        let (cert, key) = (self.own.cert(), self.own.key());
        let signer = ["-CA", cert.to_str().unwrap(), "-CAkey", key.to_str().unwrap(), "-set_serial", "1"];
        let days = days.to_string();
        let rest = ["-days", &days, "-extfile", "extensions", "-in", "request.pem", "-out", "cert.pem"];
        openssl(dir.path(), &[&["x509", "-req"], &signer, &rest]);
        Certificate { dir }
    }
}
