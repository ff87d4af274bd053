//! nginx as users run it in front of their services.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::wait::wait_for;

/// A self-signed certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    dir: TempDir,
}

impl Certificate {
    /// Makes one with openssl.
    ///
    /// # Panics
    /// When openssl fails.
    pub fn generate() -> Self {
        let dir = TempDir::new().unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=controller", "-keyout", "key.pem", "-out", "cert.pem"]);
        let output = openssl.current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        Self { dir }
    }
}

/// An nginx that answers every request with its name over TLS.
#[derive(Debug)]
pub struct Nginx {
    name: String,
    listening: Vec<SocketAddr>,
    /// Goes before its files: its log is read when it goes.
    process: Option<Process>,
    dir: TempDir,
}

impl Nginx {
    /// Starts nginx on the ports of one address.
    ///
    /// # Panics
    /// When it does not listen within 10 s.
    pub fn start(name: &str, ip: Ipv4Addr, ports: &[u16], certificate: &Certificate) -> Self {
        let dir = TempDir::new().unwrap();
        let listening: Vec<SocketAddr> = ports.iter().map(|port| (ip, *port).into()).collect();
        std::fs::write(dir.path().join("nginx.conf"), configuration(name, &listening)).unwrap();
        for file in ["cert.pem", "key.pem"] {
            std::fs::copy(certificate.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        let mut nginx = Self { name: name.to_owned(), dir, listening, process: None };
        nginx.restart();
        nginx
    }

    /// Ends it at once, without a word to its clients.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again, and returns when it listens.
    ///
    /// # Panics
    /// When it does not listen within 10 s.
    pub fn restart(&mut self) {
        self.kill();
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(self.dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        let log = self.dir.path().join("output.log");
        self.process = Some(Process::spawn(format!("nginx {}", self.name), &mut nginx, &log));
        for address in &self.listening {
            let connect = || TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop);
            wait_for(&format!("nginx on {address}"), Duration::from_secs(10), connect);
        }
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// One process, so that killing it leaves no worker that goes on serving.
fn configuration(name: &str, listening: &[SocketAddr]) -> String {
    let listen: String = listening.iter().map(|address| format!("    listen {address} ssl;\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  \
         fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  server {{\n{listen}    \
         ssl_certificate cert.pem;\n    ssl_certificate_key key.pem;\n    \
         location / {{ return 200 \"{name}\\n\"; }}\n  }}\n}}\n"
    )
}
