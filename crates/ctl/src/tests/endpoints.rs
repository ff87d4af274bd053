//! Which member is asked, and when again.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use tonic::Status;
use trestle_api::status::{Failure, failure};
use trestle_api::v1;

use super::fake::{Member, Script};
use super::sample::{sample_member_status, sample_status};
use super::{at, closed, trestle};

/// A listener that takes connections and closes them without an answer.
fn hanging_up() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            // The client's preface must be there before the end is, or it never sent anything.
            let _ = connection.read(&mut [0; 64]);
        }
    });
    address
}

/// A web server that talks HTTP/1 and HTTP/2 and answers each request with a page; `status` is its number in HPACK's table
/// (RFC 7541, appendix A).
fn web_server(status: u8) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            std::thread::spawn(move || serve(connection, status));
        }
    });
    address
}

fn serve(mut connection: TcpStream, status: u8) -> io::Result<()> {
    let mut preface = [0; 24];
    connection.read_exact(&mut preface)?;
    if !preface.starts_with(b"PRI ") {
        return connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npage\n");
    }
    // Frames (RFC 9113, section 4.1): no settings, and to a request on stream 1 a status and a page.
    connection.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])?;
    let mut head = [0; 9];
    loop {
        connection.read_exact(&mut head)?;
        let [a, b, c, kind, ..] = head;
        io::copy(&mut (&connection).take(u64::from(u32::from_be_bytes([0, a, b, c]))), &mut io::sink())?;
        if kind == 1 {
            connection.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x80 | status])?;
            connection.write_all(&[0, 0, 5, 0, 1, 0, 0, 0, 1])?;
            connection.write_all(b"page\n")?;
        }
    }
}

#[test]
fn a_web_server_is_told_as_one_whatever_it_speaks() {
    const OK: u8 = 8;
    const NOT_FOUND: u8 = 13;
    for status in [OK, NOT_FOUND] {
        let endpoint = web_server(status);
        for line in [["pool", "list"].as_slice(), &["status"]] {
            let done = trestle(std::slice::from_ref(&endpoint), line);
            let told = format!("  {endpoint} is the port of a web server, and not of a member;");
            assert!(done.code == 1 && done.err.contains(&told), "{status} {line:?}: {}", done.err);
        }
    }
}

fn request_ids(member: &Member) -> Vec<String> {
    member.script.lock().unwrap().created.iter().map(|r| r.request_id.clone()).collect()
}

#[test]
fn the_next_endpoint_is_asked() {
    let member = Member::start(Script::default());
    let endpoints = [closed(), member.address.to_string()];
    let done = trestle(&endpoints, &["pool", "create", "web"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
}

#[test]
fn a_repeated_write_keeps_its_request_id() {
    let unavailable = || Status::unavailable("no leader with a quorum can be reached");
    let first =
        Member::start(Script { refusals: [unavailable(), unavailable()].into(), ..Script::default() });
    let second = Member::start(Script { refusals: [unavailable()].into(), ..Script::default() });
    let endpoints = [first.address.to_string(), second.address.to_string()];
    let done = trestle(&endpoints, &["pool", "create", "web"]);
    assert_eq!((done.code, done.out.as_str()), (0, "pool web created (revision 12)\n"));
    assert!(done.err.contains("no leader with a quorum"), "{}", done.err);
    let ids: Vec<_> = request_ids(&first).into_iter().chain(request_ids(&second)).collect();
    assert!(ids.len() >= 3, "{ids:?}");
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_write_whose_connection_breaks_goes_on_elsewhere_under_its_id() {
    let member = Member::start(Script::default());
    let endpoints = [hanging_up(), member.address.to_string()];
    let done = trestle(&endpoints, &["pool", "create", "web", "--request-id", "mine"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(request_ids(&member), ["mine"]);
}

#[test]
fn a_step_without_request_id_is_not_repeated_blindly() {
    let member = Member::start(Script::default());
    let endpoints = [hanging_up(), member.address.to_string()];
    let done = trestle(&endpoints, &["leader", "transfer"]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("the outcome is unknown"), "{}", done.err);
}

#[test]
fn a_member_that_hangs_is_passed_over() {
    let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
    let member = Member::start(Script::default());
    let endpoints = [stuck.local_addr().unwrap().to_string(), member.address.to_string()];
    let done = trestle(&endpoints, &["--timeout", "60s", "pool", "list"]);
    assert_eq!(done.code, 0, "{}", done.err);
}

#[test]
fn time_that_runs_out_leaves_the_request_id() {
    let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = [stuck.local_addr().unwrap().to_string()];
    let done = trestle(&endpoints, &["--timeout", "300ms", "pool", "create", "web", "--request-id", "mine"]);
    assert_eq!(done.code, 1);
    assert_eq!(
        done.err,
        format!(
            "error: {}: did not answer within 300ms\n  \
             the outcome is unknown: repeat the command with --request-id mine, which applies it at most once\n",
            endpoints[0]
        )
    );
}

#[test]
fn when_nobody_answers_every_endpoint_is_named() {
    let endpoints = [closed(), closed()];
    let done = trestle(&endpoints, &["pool", "list"]);
    assert_eq!((done.code, done.out.as_str()), (1, ""));
    assert_eq!(
        done.err,
        format!(
            "error: no member answers\n  {}: connection refused\n  {}: connection refused\n  \
             check that trestled runs there and that --endpoint or TRESTLE_ENDPOINT names its admin address\n",
            endpoints[0], endpoints[1]
        )
    );
}

#[test]
fn a_read_that_is_not_answered_tells_of_every_endpoint() {
    let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = [closed(), stuck.local_addr().unwrap().to_string()];
    let done = trestle(&endpoints, &["--timeout", "300ms", "pool", "list"]);
    assert_eq!(done.code, 1);
    assert_eq!(
        done.err,
        format!(
            "error: no member could do it\n  {}: connection refused\n  {}: did not answer within 300ms\n  \
             see \"trestle status\"; reads take --local to show what one member knows\n",
            endpoints[0], endpoints[1]
        )
    );
}

#[test]
fn a_write_that_nobody_answers_is_tried_until_the_time_is_up() {
    let endpoints = [closed()];
    let done = trestle(&endpoints, &["--timeout", "300ms", "pool", "create", "web", "--request-id", "mine"]);
    assert_eq!(done.code, 1);
    let end = format!(
        "error: no member answers (tried for 300ms)\n  {}: connection refused\n  \
         check that trestled runs there and that --endpoint or TRESTLE_ENDPOINT names its admin address\n  \
         repeat the command with --request-id mine, which applies it at most once\n",
        endpoints[0]
    );
    assert!(
        done.err.contains("trying again, for at most 300ms in all\n") && done.err.ends_with(&end),
        "{}",
        done.err
    );
}

fn refusing(why: &Failure) -> Member {
    let status = v1::ClusterStatus {
        members: vec![sample_member_status("m9", 0, v1::RaftState::Empty)],
        ..Default::default()
    };
    Member::start(Script { refusals: [failure(why)].into(), status: Some(status), ..Script::default() })
}

#[test]
fn members_without_a_part_in_the_cluster_are_passed_over() {
    for (why, words) in [
        (Failure::NoCluster, "belongs to no cluster yet"),
        (Failure::Removed, "was removed from its cluster"),
        (
            Failure::Recovered { known: 0, newest: 1 },
            "is of before the cluster was made anew, and takes no part in it any more",
        ),
    ] {
        let (outside, member) = (refusing(&why), Member::start(Script::default()));
        let endpoints = [outside.address.to_string(), member.address.to_string()];
        let done = trestle(&endpoints, &["pool", "create", "web"]);
        assert_eq!((done.code, done.out.as_str()), (0, "pool web created (revision 12)\n"), "{}", done.err);
        assert_eq!(done.err, format!("{} {words}\n", endpoints[0]));

        // The only one says itself what to do, and at once.
        let done = trestle(&at(&refusing(&why)), &["pool", "create", "web"]);
        assert_eq!((done.code, done.err), (1, format!("error: {why}\n")));
    }
}

#[test]
fn founding_is_advised_where_every_endpoint_is_without_a_cluster() {
    let members = [refusing(&Failure::NoCluster), refusing(&Failure::NoCluster)];
    let endpoints = [members[0].address.to_string(), members[1].address.to_string()];
    let done = trestle(&endpoints, &["pool", "create", "web"]);
    assert_eq!(done.code, 1);
    let end = "  found a cluster with \"trestle cluster bootstrap\", or let the members join one with \"trestled join\" and a token of \
               \"trestle token create\"\n";
    assert!(done.err.ends_with(end), "{}", done.err);
}

#[test]
fn a_leader_is_looked_for_at_every_endpoint() {
    let leaderless = v1::ClusterStatus { leader: String::new(), ..sample_status() };
    let leaderless = || Member::start(Script { status: Some(leaderless.clone()), ..Script::default() });
    let (without, with) = (leaderless(), Member::start(Script::default()));
    let endpoints = [without.address.to_string(), with.address.to_string()];
    let done = trestle(&endpoints, &["leader", "show"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("LEADER   TERM\nm1       3\n", ""));

    let endpoints = [without.address.to_string(), closed()];
    let done = trestle(&endpoints, &["leader", "show"]);
    assert_eq!(
        (done.code, done.err),
        (
            1,
            format!(
                "error: no member knows a leader\n  {}: knows no leader\n  {}: connection refused\n  \
                 see \"trestle status\" for the members that answer: more than half of the voters must\n",
                endpoints[0], endpoints[1]
            )
        )
    );
}

#[test]
fn a_web_server_is_no_member() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = io::Read::read(&mut connection, &mut [0; 1024]);
            let _ = io::Write::write_all(
                &mut connection,
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            );
        }
    });
    let member = Member::start(Script::default());
    let endpoints = [address.clone(), member.address.to_string()];
    // A change without a request id would not go on where it may have been made.
    let done = trestle(&endpoints, &["vip", "move"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let words = "is the port of a web server, and not of a member; the admin port is 7480 by default";
    assert!(done.err.starts_with(&format!("{address} {words}\n")), "{}", done.err);
}
