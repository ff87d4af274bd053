//! Redis, whose role decides, and an MQTT broker that hangs.

use std::net::SocketAddr;
use std::process::Command;

use trestle_testkit::{Process, has_tools};

use super::{Kitchen, LIMIT, says};
use crate::finish;

const REDIS: u16 = 6379;

fn redis(kitchen: &Kitchen, number: u8) -> Process {
    let address = SocketAddr::from((kitchen.server(number), REDIS));
    let mut server = Command::new("redis-server");
    server.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    server.args(["--save", "", "--protected-mode", "no"]).current_dir(kitchen.dir.path());
    kitchen.start(&format!("redis-{number}"), &mut server, &[address])
}

fn redis_cli(to: SocketAddr, arguments: &[&str]) -> Command {
    let mut client = Command::new("redis-cli");
    client.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()]).args(arguments);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_clients_follow_the_master() {
    if !has_tools(&["redis-server", "redis-cli"]) {
        return;
    }
    let kitchen = Kitchen::new().await;
    let nodes = [1, 2].map(|number| SocketAddr::from((kitchen.server(number), REDIS)));
    let _servers = [redis(&kitchen, 1), redis(&kitchen, 2)];
    let follow = |replica: usize, master: usize| {
        let (ip, port) = (nodes[master].ip().to_string(), REDIS.to_string());
        finish(&mut redis_cli(nodes[replica], &["REPLICAOF", &ip, &port])).expect_success();
    };
    follow(1, 0);
    kitchen.follow("Redis", &[]);
    kitchen.healthy("redis", 1);
    let front = kitchen.front(REDIS);
    says("OK", || redis_cli(front, &["SET", "key", "one"]));
    says("one", || redis_cli(nodes[1], &["GET", "key"]));

    let mut waiting = kitchen.session("waiting", &mut redis_cli(front, &["BLPOP", "nothing", "0"]));
    says("blocked_clients:1", || {
        let mut shell = Command::new("sh");
        let cli = format!("redis-cli -h {} -p {REDIS} INFO clients", nodes[0].ip());
        shell.args(["-c", &format!("{cli} | tr -d '\\r' | grep blocked_clients")]);
        shell
    });
    finish(&mut redis_cli(nodes[1], &["REPLICAOF", "NO", "ONE"])).expect_success();
    follow(0, 1);
    waiting.exited(LIMIT);
    says("OK", || redis_cli(front, &["SET", "key", "two"]));
    says("two", || redis_cli(nodes[1], &["GET", "key"]));
}

const MQTT: u16 = 1883;

fn mosquitto(kitchen: &Kitchen, number: u8) -> Process {
    let address = SocketAddr::from((kitchen.server(number), MQTT));
    let file = kitchen.dir.path().join(format!("mosquitto-{number}.conf"));
    let text = format!("listener {MQTT} {}\nallow_anonymous true\nuser root\n", address.ip());
    std::fs::write(&file, text).unwrap();
    let mut server = Command::new("mosquitto");
    kitchen.start(&format!("mosquitto-{number}"), server.arg("-c").arg(&file), &[address])
}

/// Waits for one message of this topic.
fn subscriber(to: SocketAddr, topic: &str) -> Command {
    let mut client = Command::new("mosquitto_sub");
    client.args([
        "-h",
        &to.ip().to_string(),
        "-p",
        &to.port().to_string(),
        "-t",
        topic,
        "-C",
        "1",
        "-W",
        "5",
    ]);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_clients_leave_a_broker_that_hangs() {
    if !has_tools(&["mosquitto", "mosquitto_sub", "mosquitto_pub"]) {
        return;
    }
    let kitchen = Kitchen::new().await;
    let brokers = [mosquitto(&kitchen, 1), mosquitto(&kitchen, 2)];
    for (number, name) in [(1, "one"), (2, "two")] {
        let mut publish = Command::new("mosquitto_pub");
        publish.args(["-h", &kitchen.server(number).to_string(), "-t", "who", "-m", name, "-r"]);
        finish(&mut publish).expect_success();
    }
    kitchen.follow("MQTT", &[]);
    kitchen.healthy("mqtt", 2);
    let front = kitchen.front(MQTT);
    says("one", || subscriber(front, "who"));
    // It takes connections and answers nothing.
    brokers[0].freeze();
    says("two", || subscriber(front, "who"));
    brokers[0].thaw();
    says("one", || subscriber(front, "who"));
}
