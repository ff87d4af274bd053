//! nginx as users run it in front of their services.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::process::Process;
use crate::wait::wait_for;

/// A request for `/healthz` or `/readyz` is answered with 503 while this file is there.
const UNHEALTHY: &str = "unhealthy";

/// An nginx that answers every request with its name over TLS, and `/healthz` and `/readyz` as it is told.
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
        let configuration = configuration(name, &listening, &dir.path().join(UNHEALTHY));
        std::fs::write(dir.path().join("nginx.conf"), configuration).unwrap();
        let mut nginx = Self { name: name.to_owned(), dir, listening, process: None };
        nginx.restart_with(certificate);
        nginx
    }

    /// Starts it again with another certificate, and returns when it listens.
    ///
    /// # Panics
    /// When it does not listen within 10 s.
    pub fn restart_with(&mut self, certificate: &Certificate) {
        std::fs::copy(certificate.cert(), self.dir.path().join("cert.pem")).unwrap();
        std::fs::copy(certificate.key(), self.dir.path().join("key.pem")).unwrap();
        self.restart();
    }

    /// From now on `/healthz` and `/readyz` are answered with 200 or with 503.
    ///
    /// # Panics
    /// When the file that says so cannot be written.
    pub fn set_healthy(&self, healthy: bool) {
        let file = self.dir.path().join(UNHEALTHY);
        if healthy { std::fs::remove_file(file).unwrap() } else { std::fs::write(file, "").unwrap() }
    }

    /// Stops the process where it is: its sockets stay, and nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
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
fn configuration(name: &str, listening: &[SocketAddr], unhealthy: &Path) -> String {
    let unhealthy = unhealthy.display();
    let listen: String = listening.iter().map(|address| format!("    listen {address} ssl;\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  \
         fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  server {{\n{listen}    \
         ssl_certificate cert.pem;\n    ssl_certificate_key key.pem;\n    \
         location ~ ^/(healthz|readyz)$ {{ if (-f {unhealthy}) {{ return 503; }} return 200 \"ok\\n\"; }}\n    \
         location / {{ return 200 \"{name}\\n\"; }}\n  }}\n}}\n"
    )
}
