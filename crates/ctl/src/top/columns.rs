//! Which columns of a table fit into a width.

/// Blanks between two columns.
pub(crate) const GAP: u16 = 2;
/// What a column with words needs to say anything.
const WORDS_MIN: u16 = 28;

/// What becomes of a column where not all fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It stays.
    Always,
    /// It stays, and gets what the others leave.
    Words,
    /// It goes, those with the highest number first.
    Until(u8),
}

/// The width of each column; `None` for one that goes. What still does not fit is cut on the right.
pub(crate) fn fit(wanted: &[(Keep, u16)], room: u16) -> Vec<Option<u16>> {
    let mut shown = vec![true; wanted.len()];
    let least = |keep: Keep, width: u16| if keep == Keep::Words { width.min(WORDS_MIN) } else { width };
    let sum = |shown: &[bool], width_of: &dyn Fn(Keep, u16) -> u16| {
        let widths =
            wanted.iter().zip(shown).filter(|(_, shown)| **shown).map(|((k, w), _)| width_of(*k, *w));
        widths.map(|width| u32::from(width) + u32::from(GAP)).sum::<u32>().saturating_sub(u32::from(GAP))
    };
    while sum(&shown, &least) > u32::from(room) {
        let rank = |at: &usize| match wanted.get(*at) {
            Some((Keep::Until(rank), _)) if shown.get(*at) == Some(&true) => Some(*rank),
            _ => None,
        };
        let Some(goes) = (0..wanted.len()).filter(|at| rank(at).is_some()).max_by_key(rank) else { break };
        shown[goes] = false;
    }
    let others = sum(&shown, &|keep, width| if keep == Keep::Words { 0 } else { width });
    let rest = u16::try_from(u32::from(room).saturating_sub(others)).unwrap_or(u16::MAX);
    let mut left = room;
    let mut width = |(keep, width): (Keep, u16)| {
        let width = if keep == Keep::Words { width.min(rest) } else { width }.min(left);
        left = left.saturating_sub(width.saturating_add(GAP));
        width
    };
    wanted.iter().zip(&shown).map(|(column, shown)| shown.then(|| width(*column))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Keep::{Always, Until, Words};

    #[test]
    fn what_matters_least_goes_first_and_words_get_the_rest() {
        let columns = [(Always, 10), (Until(1), 5), (Until(2), 6), (Words, 40), (Until(3), 20)];
        assert_eq!(fit(&columns, 200), [Some(10), Some(5), Some(6), Some(40), Some(20)]);
        // 10 + 5 + 6 + 28 and 20 with their gaps.
        assert_eq!(fit(&columns, 77), [Some(10), Some(5), Some(6), Some(28), Some(20)]);
        assert_eq!(fit(&columns, 76), [Some(10), Some(5), Some(6), Some(40), None]);
        assert_eq!(fit(&columns, 54), [Some(10), Some(5), None, Some(35), None]);
        assert_eq!(fit(&columns, 20), [Some(10), None, None, Some(8), None]);
        assert_eq!(fit(&columns, 7), [Some(7), None, None, Some(0), None]);
    }
}
