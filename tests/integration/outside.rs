//! An authority outside of the cluster signs, as that of a company: by openssl, which knows nothing of Trestle. What it signs is put in place
//! by hand, it is replaced by another one while the cluster serves, and the cluster goes back to an authority of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use trestle_testkit::{has_tools, wait_for};

use crate::identities::is_believed_by_other_programs;
use crate::joining::{Machines, refused, wait_until_done};
use crate::{Finished, finish};

const LIMIT: Duration = Duration::from_secs(90);

/// A company: a root whose key is in a safe, and an authority below it that signs what comes.
struct Firm {
    dir: tempfile::TempDir,
}

fn openssl(dir: &Path, words: &[&str]) {
    finish(Command::new("openssl").args(words).current_dir(dir)).expect_success();
}

impl Firm {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
        std::fs::write(at.join("ca.ext"), authority).unwrap();
        std::fs::write(at.join("leaf.ext"), "extendedKeyUsage=serverAuth,clientAuth\n").unwrap();
        let (root, issuing) = (format!("/CN={name} Root"), format!("/CN={name} Issuing"));
        let new_key = ["-newkey", "rsa:2048", "-nodes"];
        let made =
            ["req", "-x509", "-days", "400", "-subj", &root, "-keyout", "root.key", "-out", "root.pem"];
        openssl(at, &[&made[..], &new_key].concat());
        let asked = ["req", "-subj", &issuing, "-keyout", "issuing.key", "-out", "issuing.csr"];
        openssl(at, &[&asked[..], &new_key].concat());
        let signed = ["x509", "-req", "-in", "issuing.csr", "-CA", "root.pem", "-CAkey", "root.key"];
        let as_ca = ["-CAcreateserial", "-days", "300", "-extfile", "ca.ext", "-out", "issuing.pem"];
        openssl(at, &[&signed[..], &as_ca].concat());
        Self { dir }
    }

    fn root(&self) -> String {
        self.dir.path().join("root.pem").display().to_string()
    }

    /// Signs a request for so many days, and answers the file with the certificate and those between it and the root, or it alone.
    fn sign(&self, request: &str, days: &str, whole: bool) -> String {
        let at = self.dir.path();
        std::fs::write(at.join("leaf.csr"), request).unwrap();
        let words = ["x509", "-req", "-in", "leaf.csr", "-CA", "issuing.pem", "-CAkey", "issuing.key"];
        let how = ["-CAcreateserial", "-days", days, "-copy_extensions", "copy", "-extfile", "leaf.ext"];
        openssl(at, &[&words[..], &how, &["-out", "leaf.pem"]].concat());
        let read = |name: &str| std::fs::read_to_string(at.join(name)).unwrap();
        let rest = if whole { read("issuing.pem") } else { String::new() };
        let file = at.join("signed.pem");
        std::fs::write(&file, read("leaf.pem") + &rest).unwrap();
        file.display().to_string()
    }
}

/// Has the certificate of a member signed and put in place.
fn certify(machines: &Machines, number: usize, firm: &Firm, days: &str) {
    let request = wait_until_done("a request", || machines.local(number, &["certificate", "request"]));
    let file = firm.sign(&request, days, true);
    let said = machines.local(number, &["certificate", "install", &file]).expect_success();
    assert!(said.starts_with("the certificate is in place, by authority "), "{said}");
}

/// A cluster for which a firm signs, of one machine that has its certificate.
fn founded(firm: &Firm) -> Machines {
    let mut machines = Machines::prepared();
    machines.members[0].start();
    let root = firm.root();
    let finished = machines.local(0, &["cluster", "bootstrap", "--external-ca", &root]);
    assert!(finished.stderr.contains("trestle certificate request"), "{}", finished.stderr);
    assert!(finished.stderr.contains("trestle context request admin@"), "{}", finished.stderr);
    finished.expect_success();
    machines
}

/// Waits until a member says this of what is wrong, or no more of it.
fn has_problem(machines: &Machines, number: usize, words: &str, wanted: bool) {
    wait_for(words, LIMIT, || {
        let status = machines.local(number, &["status"]);
        let text = status.stdout + &status.stderr;
        if text.contains(words) == wanted { Ok(()) } else { Err(text) }
    });
}

fn listed(machines: &Machines) -> Vec<Value> {
    let said = machines.local(0, &["ca", "list", "-o", "json"]).expect_success();
    let listed: Value = serde_json::from_str(&said).unwrap();
    listed["authorities"].as_array().unwrap().clone()
}

/// The command line of whoever has that file of contexts, and no socket.
fn as_user(context: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
    finish(command.arg("--context").arg(context).args(arguments))
}

/// The file of a user's context that the firm has signed for.
fn signed_user(machines: &Machines, firm: &Firm, name: &str) -> PathBuf {
    let file = firm.dir.path().join(format!("{name}.toml"));
    let path = file.to_str().unwrap();
    let made = machines.local(0, &["user", "create", name, "--role", "admin", "--out", path]);
    assert!(made.stderr.contains(&format!("trestle context request {path}")), "{}", made.stderr);
    made.expect_success();
    let early = as_user(&file, &["pool", "list"]);
    refused(&early, 2, &["has no certificate yet", "trestle context request"]);
    let request = machines.local(0, &["context", "request", path]).expect_success();
    let signed = firm.sign(&request, "30", true);
    machines.local(0, &["context", "install", &signed, path]).expect_success();
    file
}

#[test]
fn what_a_company_signs_is_put_in_place_and_believed_by_members_users_and_other_programs() {
    if !has_tools(&["openssl"]) {
        return;
    }
    let (firm, other) = (Firm::new("Firm"), Firm::new("Other"));
    let mut machines = founded(&firm);
    has_problem(&machines, 0, "its certificate for TLS is not there yet; authority 1 is external", true);
    let request = machines.local(0, &["certificate", "request"]).expect_success();
    // Each slip is told, and nothing is put in place by it.
    let install = |machines: &Machines, file: &str| machines.local(0, &["certificate", "install", file]);
    refused(&install(&machines, &firm.sign(&request, "30", false)), 1, &["no authority of cluster"]);
    refused(&install(&machines, &other.sign(&request, "30", true)), 1, &["no authority of cluster"]);
    refused(&install(&machines, &firm.root()), 1, &["must be of the key"]);
    refused(&install(&machines, &machines.members[0].config().display().to_string()), 1, &["no certificate"]);
    has_problem(&machines, 0, "is not there yet", true);
    certify(&machines, 0, &firm, "30");
    has_problem(&machines, 0, "its certificate for TLS", false);
    // A certificate that ends soon is asked for again in time.
    certify(&machines, 0, &firm, "1");
    certify(&machines, 0, &firm, "30");

    let token = machines.token(0, &["--uses", "2"]);
    for _ in 0..2 {
        let number = machines.prepare("");
        let said = machines.join(number, &token).expect_success();
        assert!(said.contains("trestle certificate install FILE"), "{said}");
        machines.members[number].start();
        has_problem(&machines, number, "its certificate for TLS is not there yet", true);
        certify(&machines, number, &firm, "30");
    }
    machines.have_roles(0, &[("m1", "voter"), ("m2", "voter"), ("m3", "voter")]);
    let authorities = listed(&machines);
    assert_eq!(authorities.len(), 1);
    assert_eq!((&authorities[0]["external"], &authorities[0]["state"]), (&true.into(), &"active".into()));
    assert_eq!(authorities[0]["certified_members"], serde_json::json!(["m1", "m2", "m3"]));
    assert_eq!(authorities[0]["key_members"], serde_json::json!([]));
    let keys = machines.members.iter().filter(|member| member.data_dir().join("ca").join("1.key").exists());
    assert_eq!(keys.count(), 0);

    let user = signed_user(&machines, &firm, "alice");
    as_user(&user, &["pool", "create", "web", "--wait"]).expect_success();
    for member in &machines.members {
        is_believed_by_other_programs(member, &user);
    }
    // The cluster signs nothing, and says who does.
    let sealed = firm.dir.path().join("passphrase");
    std::fs::write(&sealed, "correct horse battery").unwrap();
    let words = ["backup", "--with-ca-key", "--passphrase-file", sealed.to_str().unwrap(), "-"];
    refused(&machines.local(0, &words), 1, &["authority 1 is external"]);
    refused(&machines.local(0, &["ca", "rotate"]), 1, &["trestle ca add FILE"]);
    // All come back by what is on their disks.
    for member in &mut machines.members {
        member.kill();
    }
    for member in &mut machines.members {
        member.start();
    }
    wait_until_done("a write", || as_user(&user, &["pool", "create", "again", "--if-absent", "--wait"]));
}

/// Waits until a context that is in use has learned of so many authorities.
fn knows(context: &Path, authorities: usize) {
    wait_for("the authorities in a context", LIMIT, || {
        let text = std::fs::read_to_string(context).unwrap();
        let (_, ca) = text.split_once("ca = ").ok_or("no authorities")?;
        let known = ca.matches("BEGIN CERTIFICATE").count();
        if known == authorities { Ok(()) } else { Err(format!("{known} in {text}")) }
    });
}

/// Ends a writer, also where its test fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn one_company_follows_another_and_then_the_cluster_signs_for_itself() {
    if !has_tools(&["openssl"]) {
        return;
    }
    let mut machines = Machines::found();
    machines.become_three();
    let files = tempfile::tempdir().unwrap();
    let own = files.path().join("own.toml");
    let words = ["user", "create", "own", "--role", "admin", "--out", own.to_str().unwrap()];
    machines.local(0, &words).expect_success();
    refused(&machines.local(0, &["certificate", "request"]), 1, &["the cluster's own authority signs"]);

    let (stop, failed, done) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let finished = as_user(&own, &["pool", "create", "written", "--if-absent"]);
                if finished.code != Some(0) {
                    eprintln!("{}", finished.stderr);
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut former = 1;
        for firm in [Firm::new("First"), Firm::new("Second")] {
            let coming = former + 1;
            let added = machines.local(0, &["ca", "add", &firm.root()]).expect_success();
            assert_eq!(added, format!("authority {coming} is external, and believed by m1, m2, m3\n"));
            machines.local(0, &["ca", "add", &firm.root()]).expect_success();
            knows(&own, 2);
            refused(
                &machines.local(0, &["ca", "rotate"]),
                1,
                &["as m1, m2, m3 does not yet", "certificate install"],
            );
            (0..3).for_each(|number| certify(&machines, number, &firm, "30"));
            machines.local(0, &["ca", "rotate"]).expect_success();
            machines.local(0, &["ca", "retire", &former.to_string()]).expect_success();
            let user = signed_user(&machines, &firm, &format!("user{coming}"));
            as_user(&user, &["pool", "list"]).expect_success();
            former = coming;
        }
        machines.local(0, &["ca", "add", "--own"]).expect_success();
        knows(&own, 2);
        machines.local(0, &["ca", "rotate"]).expect_success();
    });
    assert_eq!(failed.into_inner(), 0, "of {}", done.load(Ordering::Relaxed));
    machines.local(0, &["ca", "retire", "3"]).expect_success();
    let newest = listed(&machines).pop().unwrap();
    assert_eq!((&newest["generation"], &newest["external"]), (&4.into(), &false.into()));
    assert_eq!(newest["certified_members"], serde_json::json!(["m1", "m2", "m3"]));
    let again = files.path().join("again.toml");
    let words = ["user", "create", "again", "--role", "viewer", "--out", again.to_str().unwrap()];
    machines.local(0, &words).expect_success();
    as_user(&again, &["pool", "list"]).expect_success();
}
