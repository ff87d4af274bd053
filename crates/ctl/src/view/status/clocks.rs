//! Members whose clocks differ.

use super::StatusView;

/// A difference that is worth a word, in seconds: what NTP keeps is within tens of milliseconds, and etcd warns of more than
/// a second too. What the measurement may be wrong by comes on top.
const DIFFERS: f64 = 1.0;

struct Clock<'a> {
    name: &'a str,
    /// Against the answering member's, in seconds.
    offset: f64,
    error: f64,
}

impl StatusView {
    /// Members whose clocks differ from those of most. Of two nobody can say which is right.
    pub(super) fn clock_problems(&self) -> Vec<String> {
        let mut clocks: Vec<Clock<'_>> = Vec::new();
        for m in self.members.iter().filter(|m| m.reachable) {
            // The answering member's own is what the others are measured by.
            let offset = m.clock_offset_seconds.unwrap_or_default();
            clocks.push(Clock {
                name: &m.name,
                offset,
                error: m.clock_offset_error_seconds.unwrap_or_default(),
            });
        }
        clocks.sort_by(|a, b| a.offset.total_cmp(&b.offset));
        let advice = "times in logs and events and the dates of certificates go by it; set it right (\"timedatectl status\" there \
                      says whether it is synchronised)";
        let differs =
            |a: &Clock<'_>, b: &Clock<'_>| (a.offset - b.offset).abs() - a.error - b.error > DIFFERS;
        if let [a, b] = clocks.as_slice() {
            let seconds = (a.offset - b.offset).abs();
            let told = format!("the clocks of {} and {} differ by {seconds:.1} s: {advice}", a.name, b.name);
            return if differs(a, b) { vec![told] } else { Vec::new() };
        }
        let Some(middle) = clocks.get(clocks.len() / 2) else { return Vec::new() };
        let told = |clock: &Clock<'_>| {
            let ahead = clock.offset - middle.offset;
            let word = if ahead > 0.0 { "ahead of" } else { "behind" };
            format!("{}'s clock is {:.1} s {word} the others': {advice}", clock.name, ahead.abs())
        };
        clocks.iter().filter(|clock| differs(clock, middle)).map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample::{duration, sample_status};

    /// What is told of m2 and m3 with these offsets, in milliseconds, against m1, which answers.
    fn told(offsets: &[i32], error: i32) -> Vec<String> {
        let mut status = sample_status();
        status.members.truncate(offsets.len() + 1);
        for (member, offset) in status.members.iter_mut().skip(1).zip(offsets) {
            member.clock_offset = Some(duration(*offset));
            member.clock_offset_error = Some(duration(error));
        }
        StatusView::from(status).into_problems()
    }

    #[test]
    fn a_clock_that_differs_from_most_is_told() {
        let one = told(&[40, 5_250], 1);
        assert_eq!(one.len(), 1);
        assert!(one[0].starts_with("m3's clock is 5.2 s ahead of the others': times in logs"), "{one:?}");
        // The one that answers may be the wrong one.
        let own = told(&[5_000, 5_020], 1);
        assert_eq!(own.len(), 1);
        assert!(own[0].starts_with("m1's clock is 5.0 s behind the others': "), "{own:?}");
        let two = told(&[-90_000], 1);
        assert!(two[0].starts_with("the clocks of m2 and m1 differ by 90.0 s: "), "{two:?}");
    }

    #[test]
    fn what_the_way_may_have_taken_is_no_difference() {
        assert!(told(&[900, -900], 1).is_empty());
        assert!(told(&[1_400, 0], 450).is_empty());
        assert_eq!(told(&[1_400, 0], 100).len(), 1);
    }
}
