//! Resource names: `pools/web`, `pools/web/backends/a`, `listeners/web`, `members/m1`, `vips/api`, `users/alice`,
//! `tokens/0123456789abcdef`.

use trestle_model::{
    BackendName, ListenerName, MemberName, PoolName, TokenId, UserName, Violations, VipName,
};

fn last_part<T>(
    field: &str,
    name: &str,
    collection: &str,
    parse: impl Fn(&str) -> Result<T, String>,
    v: &mut Violations,
) -> Option<T> {
    let Some(id) = name.strip_prefix(collection) else {
        v.add(field, name, format!("must have the form {collection}NAME"));
        return None;
    };
    v.take(field, name, parse(id))
}

/// Parses `pools/{pool}`, noting mistakes under `field`.
pub fn parse_pool_name(field: &str, name: &str, v: &mut Violations) -> Option<PoolName> {
    last_part(field, name, "pools/", PoolName::parse, v)
}

/// Parses `listeners/{listener}`, noting mistakes under `field`.
pub fn parse_listener_name(field: &str, name: &str, v: &mut Violations) -> Option<ListenerName> {
    last_part(field, name, "listeners/", ListenerName::parse, v)
}

/// Parses `members/{member}`, noting mistakes under `field`.
pub fn parse_member_name(field: &str, name: &str, v: &mut Violations) -> Option<MemberName> {
    last_part(field, name, "members/", MemberName::parse, v)
}

/// Parses `vips/{vip}`, noting mistakes under `field`.
pub fn parse_vip_name(field: &str, name: &str, v: &mut Violations) -> Option<VipName> {
    last_part(field, name, "vips/", VipName::parse, v)
}

/// Parses `users/{user}`, noting mistakes under `field`.
pub fn parse_user_name(field: &str, name: &str, v: &mut Violations) -> Option<UserName> {
    last_part(field, name, "users/", UserName::parse, v)
}

/// Parses `tokens/{token}`, noting mistakes under `field`.
pub fn parse_token_name(field: &str, name: &str, v: &mut Violations) -> Option<TokenId> {
    last_part(field, name, "tokens/", TokenId::parse, v)
}

/// Parses `pools/{pool}/backends/{backend}`, noting mistakes under `field`.
pub fn parse_backend_name(field: &str, name: &str, v: &mut Violations) -> Option<(PoolName, BackendName)> {
    let parts = name.strip_prefix("pools/").and_then(|rest| rest.split_once("/backends/"));
    let Some((pool, backend)) = parts else {
        v.add(field, name, "must have the form pools/POOL/backends/BACKEND");
        return None;
    };
    let pool = v.take(field, name, PoolName::parse(pool));
    let backend = v.take(field, name, BackendName::parse(backend));
    pool.zip(backend)
}

/// Renders `pools/{pool}`.
pub fn pool_name(name: &PoolName) -> String {
    format!("pools/{name}")
}

/// Renders `pools/{pool}/backends/{backend}`.
pub fn backend_name(pool: &PoolName, name: &BackendName) -> String {
    format!("pools/{pool}/backends/{name}")
}

/// Renders `listeners/{listener}`.
pub fn listener_name(name: &ListenerName) -> String {
    format!("listeners/{name}")
}

/// Renders `vips/{vip}`.
pub fn vip_name(name: &VipName) -> String {
    format!("vips/{name}")
}

/// Renders `users/{user}`.
pub fn user_name(name: &UserName) -> String {
    format!("users/{name}")
}

/// Renders `tokens/{token}`.
pub fn token_name(id: TokenId) -> String {
    format!("tokens/{id}")
}

/// Renders `members/{member}`.
pub fn member_name(name: &MemberName) -> String {
    format!("members/{name}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_round_trip() {
        let mut v = Violations::new();
        let (pool, backend) = parse_backend_name("name", "pools/web/backends/a", &mut v).unwrap();
        assert_eq!(backend_name(&pool, &backend), "pools/web/backends/a");
        assert!(v.is_empty());
    }

    #[test]
    fn path_parts_do_not_pass() {
        for name in
            ["", "web", "pools/", "pools/../x", "pools/a/b", "pool/a", "pools/a/backends/b", "/pools/a"]
        {
            let mut v = Violations::new();
            assert!(parse_pool_name("name", name, &mut v).is_none(), "{name}");
            assert!(!v.is_empty(), "{name}");
        }
    }
}
