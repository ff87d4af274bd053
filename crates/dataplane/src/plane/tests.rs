#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use trestle_model::{Command, PoolName, PoolSpec};

use super::*;
use crate::settings::tests::settings;

const DEADLINE: Duration = Duration::from_secs(20);

/// Nothing else tells a pool's memory that there are others now.
#[tokio::test]
async fn a_pool_remembers_fewer_clients_when_others_begin_to() {
    const CLIENTS: u32 = 50_000;
    let (target, followed) = watch::channel(Arc::default());
    let plane = DataPlane::start(settings(), followed).unwrap();
    let mut state = ClusterState::default();
    let mut index = 0;
    let mut create = |names: std::ops::Range<u32>| {
        for name in names {
            index += 1;
            let name = PoolName::parse(&format!("p{name}")).unwrap();
            let spec = PoolSpec { stickiness: Duration::from_secs(3600), ..PoolSpec::default() };
            state.apply(index, &Command::create((name, spec))).unwrap();
        }
        target.send_replace(Arc::new(state.clone()));
        index
    };
    let in_force = async |revision| {
        let mut in_force = plane.in_force();
        timeout(DEADLINE, in_force.wait_for(|r| *r == revision)).await.unwrap().unwrap();
    };
    in_force(create(0..1)).await;
    let memory = {
        let table = plane.table();
        let sticky = table.pools.values().next().and_then(|pool| pool.sticky.as_ref()).unwrap();
        for client in 0..CLIENTS {
            drop(sticky.begin((client.to_be_bytes(), 1).into(), 1, false));
        }
        sticky.memory.clone()
    };
    assert_eq!(memory.len(), CLIENTS as usize);
    in_force(create(1..100)).await;
    assert_eq!(memory.len(), 10_000, "a hundredth of what all pools remember together");
    plane.finish(Duration::ZERO).await;
}
