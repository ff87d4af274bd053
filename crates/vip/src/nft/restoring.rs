//! Putting the tables back, without a moment in which they drop what may pass.

use std::io;
use std::time::Instant;

use super::numbers::{DEL_ELEMENT, FAMILY_INET, NEW_ELEMENT};
use super::ruleset::{self, QUIET4, QUIET6};
use super::{DesiredFence, Nft, timed};

impl Nft {
    /// Replaces whatever tables of this name there are by new ones in which all is as wanted, in one transaction: what is open
    /// is open throughout. Interfaces are to be guarded anew.
    ///
    /// The clock is read between the two halves that [`Nft::arm`] speaks of. Whatever has become of the tables, their guard
    /// can be set: it needs no more than the one table and set, which block nothing by themselves.
    pub(crate) fn restore(&mut self, wanted: &DesiredFence) -> io::Result<()> {
        self.guarded.clear();
        let restored = self.retried(|nft| {
            nft.begin();
            ruleset::guard_only(&mut nft.batch, &nft.table);
            nft.set_guard();
            nft.commit()?;
            let now = Instant::now();
            nft.begin();
            nft.guard(DEL_ELEMENT, None);
            nft.tables_and_fenced(&wanted.fenced);
            for ipv4 in [true, false] {
                let leases = wanted.leases.iter().filter_map(move |lease| timed(lease, ipv4, now));
                if leases.clone().next().is_some() {
                    for (family, set) in nft.sets(ipv4, true) {
                        nft.elements(NEW_ELEMENT, family, set, leases.clone());
                    }
                }
                let quiet = wanted.quiet.iter().filter_map(move |quiet| timed(quiet, ipv4, now));
                if quiet.clone().next().is_some() {
                    let set = if ipv4 { QUIET4 } else { QUIET6 };
                    nft.elements(NEW_ELEMENT, FAMILY_INET, set, quiet);
                }
            }
            nft.commit()
        });
        // A thread that is too slow for that, or a table that does not take the guard: shut first, then opened.
        restored.or_else(|_| {
            self.install(&wanted.fenced)?;
            let quieted = self.quiesce(&wanted.quiet);
            self.arm(&wanted.leases).and(quieted)
        })
    }
}
