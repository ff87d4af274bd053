//! Pages: answers are cut by number and by bytes, so that every client takes them.

use std::collections::BTreeMap;
use std::ops::Bound;

use tonic::Status;
use trestle_api::status;
use trestle_model::Violations;

/// Pages are this long when the caller names no size.
const PAGE_DEFAULT: usize = 100;
/// Longest page.
const PAGE_MAX: usize = 1000;
/// Bytes with which a page is full: far below the 4 MiB that clients take.
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// One page of resources in the order of their names.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next: String,
}

fn given_size(size: i32, v: &mut Violations) -> Option<usize> {
    if size < 0 {
        v.add("page_size", size, "must not be negative");
    }
    usize::try_from(size).ok().filter(|size| *size > 0).map(|size| size.min(PAGE_MAX))
}

/// How long a page is for a caller that asks for `size`.
pub(super) fn page_size(size: i32, v: &mut Violations) -> usize {
    given_size(size, v).unwrap_or(PAGE_DEFAULT)
}

/// How long a page is that only its bytes bound unless the caller asks for `size`.
pub(super) fn page_size_by_bytes(size: i32, v: &mut Violations) -> usize {
    given_size(size, v).unwrap_or(usize::MAX)
}

/// What the page before ended with, as its token says; `None` for the first page.
pub(super) fn after<K>(
    token: &str,
    parse: impl Fn(&str) -> Result<K, String>,
    v: &mut Violations,
) -> Option<K> {
    match token {
        "" => None,
        token => {
            v.take("page_token", token, parse(token).map_err(|_| "must be a next_page_token".to_owned()))
        }
    }
}

/// What a page has at most, but for a first item that is larger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageBounds {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl PageBounds {
    pub(crate) const NONE: Self = Self { items: usize::MAX, bytes: usize::MAX };

    /// As many items as fit into a message.
    pub(super) fn of(items: usize) -> Self {
        Self { items, bytes: PAGE_BYTES }
    }
}

/// Takes items up to the bounds. Answers the key of the last one too if that leaves any.
pub(crate) fn fill<K, T>(
    items: impl Iterator<Item = (K, T)>,
    bounds: PageBounds,
    bytes_of: impl Fn(&T) -> usize,
) -> (Vec<T>, Option<K>) {
    let (mut taken, mut bytes, mut last) = (Vec::new(), 0, None);
    for (key, item) in items {
        bytes += bytes_of(&item);
        if last.is_some() && (taken.len() >= bounds.items || bytes > bounds.bytes) {
            return (taken, last);
        }
        taken.push(item);
        last = Some(key);
    }
    (taken, None)
}

/// Cuts a page out of what comes after `token`, the id that the page before ended with. It has as many items as were asked
/// for, or fewer where they are large.
pub(super) fn page<K: Ord + ToString, V, T: prost::Message>(
    all: &BTreeMap<K, V>,
    size: i32,
    token: &str,
    parse: impl Fn(&str) -> Result<K, String>,
    render: impl Fn(&V) -> T,
) -> Result<Page<T>, Status> {
    let mut v = Violations::new();
    let size = page_size(size, &mut v);
    let after = after(token, parse, &mut v);
    v.into_result().map_err(|found| status::invalid(&found))?;
    let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let rest = all.range((start, Bound::Unbounded)).map(|(key, value)| (key, render(value)));
    let (items, last) = fill(rest, PageBounds::of(size), T::encoded_len);
    Ok(Page { items, next: last.map(K::to_string).unwrap_or_default() })
}

/// Cuts a text to so many bytes, with a sign that there was more.
pub(super) fn shorten_text(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
}

/// Cuts a list of texts to the bounds, and says how many `what` it leaves out.
pub(super) fn abridge(texts: &mut Vec<String>, bounds: PageBounds, what: &str) {
    let (mut kept, mut room) = (0, bounds.bytes);
    for text in texts.iter_mut().take(bounds.items) {
        if text.len() > room && kept > 0 {
            break;
        }
        shorten_text(text, room);
        room = room.saturating_sub(text.len());
        kept += 1;
    }
    let more = texts.len() - kept;
    texts.truncate(kept);
    if more > 0 {
        texts.push(format!("and {more} more {what}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pages_cover_everything_once() {
        let all: BTreeMap<String, u64> = (0..25).map(|n| (format!("{n:03}"), n)).collect();
        let parse = |t: &str| Ok(t.to_owned());
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = page(&all, 10, &token, parse, |n| *n).unwrap();
            seen.extend(page.items);
            if page.next.is_empty() {
                break;
            }
            token = page.next;
        }
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
        assert_eq!(page(&all, 25, "", parse, |n| *n).unwrap().next, "");
        assert!(page(&all, -1, "", parse, |n| *n).is_err());
        let large: BTreeMap<String, u64> = (0..25).map(|n| (format!("{n:03}"), n)).collect();
        let render = |_: &u64| "x".repeat(PAGE_BYTES / 4);
        let page_of = |token: &str| page(&large, 25, token, parse, render).unwrap();
        let first = page_of("");
        assert_eq!((first.items.len(), first.next.as_str()), (3, "002"));
        assert_eq!(page(&large, 25, "", parse, |_| "x".repeat(2 * PAGE_BYTES)).unwrap().items.len(), 1);
        assert!(page(&all, 1, "x", |_| Err::<String, _>(String::new()), |n| *n).is_err());
    }

    #[test]
    fn texts_are_cut_by_number_and_by_bytes() {
        let cut = |texts: &[&str], items, bytes| {
            let mut texts = texts.iter().map(|text| (*text).to_owned()).collect();
            abridge(&mut texts, PageBounds { items, bytes }, "reasons");
            texts
        };
        assert_eq!(cut(&["a", "b"], 2, 2), ["a", "b"]);
        assert_eq!(cut(&["a", "b", "c"], 2, 100), ["a", "b", "and 1 more reasons"]);
        assert_eq!(cut(&["aa", "bb", "c"], 9, 3), ["aa", "and 2 more reasons"]);
        assert_eq!(cut(&["ééé", "b"], 9, 3), ["é…", "and 1 more reasons"]);
        assert!(cut(&[], 9, 9).is_empty());
    }
}
