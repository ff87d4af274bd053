//! Virtual IPs of Kubernetes' control planes, set up as `deploy/kubernetes/README.md` has them. nginx stands for the API
//! servers, on all addresses of its node as they are.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use trestle_testkit::lab::{Host, MEMBERS, VIP};
use trestle_testkit::{Certificate, Nginx, Section, fetch_tls, has_tools, wait_for};

use crate::Bed;
use crate::bed::LIMIT;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes/README.md");
/// What the page's examples are about.
const VIP_THERE: &str = "10.0.3.100";
const NODES_THERE: [&str; 3] = ["10.0.3.11", "10.0.3.12", "10.0.3.13"];

/// The port of API servers.
const API: u16 = 6443;
/// The port beside it.
const OWN: u16 = 7443;

/// A lab whose virtual IP is not made yet.
struct ControlPlane {
    bed: Bed,
    certificate: Certificate,
}

impl ControlPlane {
    fn new() -> Option<Self> {
        let bed = Bed::unhurried().filter(|_| has_tools(&["nginx", "curl", "openssl"]))?;
        bed.run(&["listener", "delete", "web"]);
        bed.run(&["vip", "delete", "front"]);
        Some(Self { bed, certificate: Certificate::generate() })
    }

    /// Starts an API server on each of these machines, which answers with its number.
    fn serve(&self, nodes: &[Host]) -> Vec<Nginx> {
        let start = |(number, node): (usize, &Host)| {
            node.run(|| Nginx::start(&number.to_string(), Ipv4Addr::UNSPECIFIED, &[API], &self.certificate))
        };
        nodes.iter().enumerate().map(start).collect()
    }

    /// Runs the commands of a section of the page with these nodes.
    fn follow(&self, heading: &str, nodes: &[Host]) {
        let vip = VIP.to_string();
        let nodes: Vec<String> = nodes.iter().map(|node| node.ip.to_string()).collect();
        let mut replaced = vec![(VIP_THERE, vip.as_str())];
        let section = Section::read(Path::new(PAGE), heading);
        if section.code("sh").contains(NODES_THERE[0]) {
            replaced.extend(NODES_THERE.into_iter().zip(nodes.iter().map(String::as_str)));
        }
        self.bed.product.follow(&self.bed.lab, &section.with(&replaced).code("sh"));
    }

    /// Takes back what that made.
    fn clear(&self) {
        self.bed.run(&["listener", "delete", "kube-api"]);
        self.bed.run(&["pool", "delete", "kube-api"]);
        self.bed.run(&["vip", "delete", "api"]);
    }

    /// The node whose API server answers a client at this port of the virtual IP.
    fn answer(&self, port: u16) -> Result<usize, String> {
        let answer = self.bed.lab.client.run(|| fetch_tls((VIP, port).into()))?;
        answer.parse().map_err(|_| format!("the answer is {answer:?}"))
    }

    /// Waits until the answer comes from a node that `wanted` accepts.
    fn answered(&self, port: u16, wanted: impl Fn(usize) -> bool) -> usize {
        wait_for(&format!("an answer at port {port}"), LIMIT, || match self.answer(port)? {
            node if wanted(node) => Ok(node),
            node => Err(format!("node {node} answers")),
        })
    }

    /// The member that has the virtual IP.
    fn holder(&self) -> usize {
        wait_for("one holder", LIMIT, || match self.bed.lab.holders()[..] {
            [holder] => Ok(holder),
            ref others => Err(format!("{others:?}")),
        })
    }

    fn moves(&self) -> usize {
        self.bed.json(&["vip", "history"]).as_array().unwrap().len()
    }

    /// Adds the lines that the page has for the members' files, and more, and starts the members again.
    fn configure(&mut self, heading: &str, more: &str) {
        let mut lines = Section::read(Path::new(PAGE), heading).code("toml");
        write!(lines, "{more}").unwrap();
        let bed = &mut self.bed;
        for member in &mut bed.product.members {
            let mut file = OpenOptions::new().append(true).open(member.config()).unwrap();
            write!(file, "\n{lines}").unwrap();
            assert!(member.stop().success());
        }
        for (member, host) in bed.product.members.iter_mut().zip(&bed.lab.members) {
            host.run(|| member.start());
        }
    }
}

/// One API server ends, and others go on answering at this port.
fn outlives_an_api_server(plane: &ControlPlane, port: u16, servers: &mut [Nginx], nodes: &[Host]) {
    let first = plane.answered(port, |_| true);
    let (holder, moves) = (plane.holder(), plane.moves());
    for node in 0..servers.len() {
        servers[node].kill();
        // The connect is refused at once, and tried at another.
        for _ in 0..2 * servers.len() {
            let answer = plane.answer(port);
            assert!(answer.as_ref().is_ok_and(|by| *by != node), "{answer:?} after the end of {node}");
        }
        nodes[node].run(|| servers[node].restart());
        plane.answered(port, |by| by == node);
    }
    assert_eq!((plane.holder(), plane.moves()), (holder, moves), "the first answer was {first}'s");
}

/// An address that an API server has is taken on every member: nothing moves for that, and nothing is held up by it.
fn a_taken_port_stops_nothing(plane: &ControlPlane) {
    let bed = &plane.bed;
    let (holder, moves) = (plane.holder(), plane.moves());
    bed.run(&["pool", "create", "taken", "--health", "tcp"]);
    bed.run(&["listener", "create", "taken", "--bind", &format!("api:{API}"), "--pool", "taken"]);
    (0..MEMBERS).for_each(|member| bed.unfit(member, "listener taken"));
    assert_eq!((plane.holder(), plane.moves()), (holder, moves), "{:?}", bed.history(usize::MAX));
    let to = bed.after(holder, 1);
    bed.run(&["vip", "move", "--to", &bed.name(to)]);
    plane.answered(API, |by| by == to);
    // The leader, too.
    bed.run(&["member", "remove", &bed.name(to)]);
    let last = plane.answered(API, |by| by != to);
    assert_eq!(plane.holder(), last);
}

/// Moves the virtual IP away from a node whose API server has ended, to the one where it lives, for good.
fn follows_the_api_server(plane: &ControlPlane, servers: &mut [Nginx]) {
    let (bed, holder) = (&plane.bed, plane.holder());
    assert_eq!(plane.answered(API, |_| true), holder);
    let moves = plane.moves();
    let (dead, alive) = (bed.after(holder, 1), bed.after(holder, 2));
    servers[dead].kill();
    bed.unfit(dead, "its own check https://127.0.0.1:6443/readyz fails: connection refused");
    assert_eq!((plane.holder(), plane.moves()), (holder, moves));

    // Alive, but not ready.
    servers[holder].set_healthy(false);
    plane.answered(API, |by| by == alive);
    bed.handed_over(
        holder,
        alive,
        "its own check https://127.0.0.1:6443/readyz fails: HTTP 503, wanted 200-299",
    );
    let moves = plane.moves();
    servers[holder].set_healthy(true);
    bed.lab.members[dead].run(|| servers[dead].restart());
    // It counts as unfit for a while where it was given up; the other is fit at once.
    bed.fit(dead);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((plane.holder(), plane.moves()), (alive, moves), "it came back");

    // All of them: nobody is better.
    servers.iter_mut().for_each(Nginx::kill);
    (0..MEMBERS).for_each(|member| bed.unfit(member, "its own check"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((plane.holder(), plane.moves()), (alive, moves), "{:?}", bed.history(usize::MAX));
    servers.iter_mut().zip(&bed.lab.members).for_each(|(server, node)| node.run(|| server.restart()));
    plane.answered(API, |by| by == alive);
}

#[test]
fn the_three_shapes_of_a_control_plane_work_as_they_are_written_down() {
    let Some(mut plane) = ControlPlane::new() else { return };
    let beside = [plane.bed.lab.servers(), &[plane.bed.lab.client.clone()]].concat();
    let mut servers = plane.serve(&beside);
    plane.follow("Nodes of their own", &beside);
    outlives_an_api_server(&plane, API, &mut servers, &beside);
    plane.clear();
    drop(servers);

    let nodes = plane.bed.lab.members.clone();
    let mut servers = plane.serve(&nodes);
    plane.follow("A port of its own", &nodes);
    outlives_an_api_server(&plane, OWN, &mut servers, &nodes);
    plane.clear();

    plane.configure("The virtual IP alone", "check_interval = \"500ms\"\n");
    plane.follow("The virtual IP alone", &nodes);
    follows_the_api_server(&plane, &mut servers);
    a_taken_port_stops_nothing(&plane);
}
