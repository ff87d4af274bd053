//! Removing what earlier runs left, and nothing of anybody who lives.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;

use crate::capability::require_net_admin;
use crate::error::VipError;
use crate::lock::TableLock;
use crate::nft::{Nft, TableNames};
use crate::route::{Assigned, RouteSocket};

/// Begins the names of all tables of members.
pub(crate) const PREFIX: &str = "trestle_";

/// The name of a member's tables. Such names are letters, digits and `_`.
pub(crate) fn table(member: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("{PREFIX}{}", member.chars().map(plain).collect::<String>())
}

/// Sets the fence up in tables of this name, whose lock the caller has. The inner error says why there can be none.
///
/// What is ours is what tables of our name fence and what ends within a minute: the tables are closed first, then the
/// addresses removed, then the tables made anew. An address that lasts was configured by someone else since, and stays. Without
/// nftables there is nothing to go by, and no need: such addresses have gone by themselves within
/// [`Fence::error`](crate::Fence::error) of their lease.
pub(crate) fn fence(table: &str, route: &mut RouteSocket) -> Result<Result<Nft, String>, VipError> {
    let mut nft = match prepared(table) {
        Ok(nft) => nft,
        Err(error) => return Ok(Err(format!("nftables: {error}"))),
    };
    let fenced = nft.leftovers().map_err(VipError::system("list leftovers"))?;
    if fenced.is_empty() {
        return Ok(Ok(nft));
    }
    let addresses = route.addresses().map_err(VipError::system("list addresses"))?;
    for found in addresses.iter().filter(|found| fenced.contains(&found.address) && !found.lasting) {
        route.remove_found(found).map_err(VipError::system("remove an address that an earlier run left"))?;
    }
    nft.install(&[]).map_err(VipError::system("set the fence up"))?;
    Ok(Ok(nft))
}

/// Tables in which whatever was fenced is, and nothing is open.
fn prepared(table: &str) -> io::Result<Nft> {
    let mut nft = Nft::open(table)?;
    let fenced = nft.leftovers()?;
    nft.install(&fenced)?;
    Ok(nft)
}

/// What was found of other members in this network namespace.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// What was left, and is removed.
    pub(crate) removed: Vec<String>,
    /// What is there yet: of members that live, and what could not be removed.
    pub(crate) left: Vec<Left>,
}

/// Tables that stay.
#[derive(Debug)]
pub(crate) struct Left {
    /// Why.
    pub(crate) why: String,
    /// False when they belong to a member that lives.
    pub(crate) failed: bool,
    /// The addresses whose packets they drop.
    pub(crate) shut: Vec<IpAddr>,
}

impl Others {
    /// By address, why its packets are dropped.
    pub(crate) fn shut(&self) -> BTreeMap<IpAddr, String> {
        self.left.iter().flat_map(|left| left.shut.iter().map(|ip| (*ip, left.why.clone()))).collect()
    }
}

/// Removes what members of other names than `own` left: tables whose lock nobody holds, the addresses in them that end within
/// a minute, and addresses of ours in no table at all.
pub(crate) fn others(nft: &mut Nft, route: &mut RouteSocket, own: Option<&str>) -> io::Result<Others> {
    // Addresses first: a member fences an address before it adds it, so that one which is listed here and lives is in a table
    // that is listed below.
    let addresses = route.addresses()?;
    let (mut found, mut living, mut dead) = (Others::default(), Vec::new(), Vec::new());
    for tables in nft.tables(PREFIX)? {
        // Tables of that name can be another program's.
        let Some(fenced) = nft.fenced_by(&tables)? else { continue };
        let shut: Vec<IpAddr> = fenced.iter().filter(|(_, open)| !open).map(|(ip, _)| *ip).collect();
        let all = fenced.into_iter().map(|(ip, _)| ip);
        if Some(&*tables.name) == own {
            living.extend(all);
            continue;
        }
        match TableLock::take(&tables.name) {
            Ok(Ok(lock)) => dead.push((tables, all.collect::<Vec<IpAddr>>(), shut, lock)),
            Ok(Err(owner)) => {
                living.extend(all);
                let why =
                    format!("table {} of another member on this machine, which runs{owner}", tables.name);
                found.left.push(Left { why, failed: false, shut });
            }
            Err(error) => {
                living.extend(all);
                let why = format!("table {}: whether its member runs is unknown: {error}", tables.name);
                found.left.push(Left { why, failed: true, shut });
            }
        }
    }
    let gone = |found: &&Assigned| !found.lasting && !living.contains(&found.address);
    for (tables, fenced, shut, _lock) in dead {
        let leftover = addresses.iter().filter(gone).filter(|found| fenced.contains(&found.address));
        if let Err(error) = bury(nft, route, &tables, leftover, &mut found.removed) {
            let why = format!(
                "table {}, which a member that is gone left, cannot be removed: {error}",
                tables.name
            );
            found.left.push(Left { why, failed: true, shut });
        }
    }
    let failed: Vec<IpAddr> = found.left.iter().flat_map(|left| left.shut.clone()).collect();
    for stray in route.addresses()?.iter().filter(gone).filter(|a| a.ours && !failed.contains(&a.address)) {
        // What was added meanwhile belongs to somebody who lives.
        if addresses.contains(stray) {
            route.remove_found(stray)?;
            found.removed.push(format!("address {}/{}", stray.address, stray.prefix));
        }
    }
    Ok(found)
}

/// Silences what tables fence, then removes the addresses, then the tables.
fn bury<'a>(
    nft: &mut Nft,
    route: &mut RouteSocket,
    tables: &TableNames,
    leftover: impl Iterator<Item = &'a Assigned>,
    removed: &mut Vec<String>,
) -> io::Result<()> {
    nft.shut_all(tables)?;
    for found in leftover {
        route.remove_found(found)?;
        removed.push(format!("address {}/{}", found.address, found.prefix));
    }
    nft.remove_tables(tables)?;
    removed.push(format!("table {}", tables.name));
    Ok(())
}

/// What [`cleanup`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CleanedUp {
    /// What was left by members that no longer run, and is removed: tables of nftables, addresses.
    pub removed: Vec<String>,
    /// What stays because its member runs.
    pub living: Vec<String>,
    /// What could not be removed, with the reason.
    pub failed: Vec<String>,
}

impl fmt::Display for CleanedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [("removed", &self.removed), ("left alone", &self.living), ("not removed", &self.failed)];
        let mut any = false;
        for (what, each) in lines.into_iter().flat_map(|(what, all)| all.iter().map(move |each| (what, each)))
        {
            writeln!(f, "{what}: {each}")?;
            any = true;
        }
        if any { Ok(()) } else { writeln!(f, "nothing was left here") }
    }
}

/// Removes what members left in this network namespace that no longer run there: after it, nothing of Trestle stands against
/// any address, but for members that run.
///
/// # Errors
/// When CAP_NET_ADMIN is missing, or the kernel does not list its tables or addresses.
pub fn cleanup() -> Result<CleanedUp, VipError> {
    require_net_admin()?;
    let mut route = RouteSocket::open().map_err(VipError::system("open a routing socket"))?;
    let mut nft = Nft::open("").map_err(VipError::system("open a socket of nftables"))?;
    let others = others(&mut nft, &mut route, None).map_err(VipError::system("remove what was left"))?;
    let (failed, living): (Vec<Left>, Vec<Left>) = others.left.into_iter().partition(|left| left.failed);
    let words = |all: Vec<Left>| all.into_iter().map(|left| left.why).collect();
    Ok(CleanedUp { removed: others.removed, living: words(living), failed: words(failed) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_member_has_a_table() {
        assert_eq!(table("node-1.example"), "trestle_node_1_example");
    }

    #[test]
    fn what_was_done_is_said_line_by_line() {
        assert_eq!(CleanedUp::default().to_string(), "nothing was left here\n");
        let done = CleanedUp {
            removed: vec!["address 192.0.2.50/32".to_owned(), "table trestle_m1".to_owned()],
            living: vec!["table trestle_m2".to_owned()],
            failed: Vec::new(),
        };
        let said =
            "removed: address 192.0.2.50/32\nremoved: table trestle_m1\nleft alone: table trestle_m2\n";
        assert_eq!(done.to_string(), said);
    }
}
