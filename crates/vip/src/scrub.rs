//! Removing what an earlier run left, and nothing else.

use std::io;

use crate::error::VipError;
use crate::nft::Nft;
use crate::route::Route;

/// Table names of nftables are letters, digits and `_`.
fn table(member: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("trestle_{}", member.chars().map(plain).collect::<String>())
}

/// Sets the fence up for `member`. The inner error says why there can be none.
///
/// What is ours is what tables of our name fence and what ends within a minute: the tables are closed first, then the
/// addresses removed, then the tables made anew. An address that lasts was configured by someone else since, and stays. Without
/// nftables there is nothing to go by, and no need: such addresses have gone by themselves within
/// [`Fence::error`](crate::Fence::error) of their lease.
pub(crate) fn fence(member: &str, route: &mut Route) -> Result<Result<Nft, String>, VipError> {
    let table = table(member);
    let mut nft = match prepared(&table) {
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

#[cfg(test)]
mod tests {
    #[test]
    fn any_member_has_a_table() {
        assert_eq!(super::table("node-1.example"), "trestle_node_1_example");
    }
}
