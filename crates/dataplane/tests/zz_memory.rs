#![allow(warnings, clippy::all)]
use std::alloc::*;
use std::sync::Arc;
use std::sync::atomic::*;
use trestle_dataplane::*;
use trestle_model::*;
struct C;
static N: AtomicI64 = AtomicI64::new(0);
static T: AtomicBool = AtomicBool::new(false);
unsafe impl GlobalAlloc for C {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        N.fetch_add(l.size() as i64, Ordering::Relaxed);
        if T.load(Ordering::Relaxed) && l.size() > 64 {
            T.store(false, Ordering::Relaxed);
            eprintln!("{l:?}");
            T.store(true, Ordering::Relaxed);
        }
        unsafe { System.alloc(l) }
    }
    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        N.fetch_sub(l.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(p, l) }
    }
}
#[global_allocator]
static A: C = C;
#[test]
fn memory() {
    let (tx, rx) = tokio::sync::watch::channel(Arc::default());
    let plane = DataPlane::start(
        Settings {
            workers: 1.try_into().unwrap(),
            data_address: None,
            drift_interval: std::time::Duration::from_secs(100),
        },
        rx,
    )
    .unwrap();
    let server = std::net::TcpListener::bind("127.9.255.1:0").unwrap();
    let mut s = ClusterState::default();
    let p = PoolName::parse("p").unwrap();
    let mut spec = PoolSpec::default();
    spec.health.kind = CheckKind::None;
    s.apply(1, &Command::CreatePool { name: p.clone(), spec }).unwrap();
    s.apply(
        2,
        &Command::CreateBackend {
            pool: p.clone(),
            name: BackendName::parse("b").unwrap(),
            spec: BackendSpec::at(BackendAddress::parse(&server.local_addr().unwrap().to_string()).unwrap()),
        },
    )
    .unwrap();
    s.apply(
        3,
        &Command::CreateListener {
            name: ListenerName::parse("l").unwrap(),
            spec: ListenerSpec { binds: vec![Bind::parse("127.9.255.2:7777").unwrap()], pool: p },
        },
    )
    .unwrap();
    tx.send_replace(Arc::new(s));
    while *plane.in_force().borrow() < 3 {
        std::thread::yield_now()
    }
    let mut keep = Vec::with_capacity(20000);
    let mut conn = |keep: &mut Vec<_>| {
        let mut c = std::net::TcpStream::connect("127.9.255.2:7777").unwrap();
        let (mut b, _) = server.accept().unwrap();
        use std::io::*;
        c.write_all(b"x").unwrap();
        let mut x = [0];
        b.read_exact(&mut x).unwrap();
        keep.push(c);
        keep.push(b);
    };
    for _ in 0..100 {
        conn(&mut keep)
    }
    T.store(true, Ordering::Relaxed);
    conn(&mut keep);
    T.store(false, Ordering::Relaxed);
    let before = N.load(Ordering::Relaxed);
    for _ in 0..2000 {
        conn(&mut keep)
    }
    eprintln!("heap per connection {}", (N.load(Ordering::Relaxed) - before) / 2000);
}
