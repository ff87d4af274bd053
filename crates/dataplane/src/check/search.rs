//! Searches for a text in what a backend sends.

/// Most bytes that are searched.
pub(super) const SEARCHED_MAX: usize = 64 * 1024;

/// What was read so far, and the text that is searched for in it.
pub(super) struct Search<'a> {
    text: &'a [u8],
    seen: Vec<u8>,
    /// Where the text ends, once it was found.
    end: usize,
}

impl<'a> Search<'a> {
    /// Searches for `text`, which must not be empty.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, seen: Vec::new(), end: 0 }
    }

    /// The first [`SEARCHED_MAX`] bytes of what was read.
    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// What came after the text, once it was found.
    pub(super) fn rest(&self) -> &[u8] {
        self.seen.get(self.end..).unwrap_or_default()
    }

    /// Adds what was read next. Answers whether the text was found so far; `None` while that can still change.
    pub(super) fn feed(&mut self, data: &[u8]) -> Option<bool> {
        // The text may begin in the part that was read before.
        let from = self.seen.len().saturating_sub(self.text.len());
        self.seen.extend(data.iter().take(SEARCHED_MAX - self.seen.len()));
        let new = self.seen.get(from..).unwrap_or_default();
        if let Some(at) = new.windows(self.text.len()).position(|part| part == self.text) {
            self.end = from + at + self.text.len();
            return Some(true);
        }
        (self.seen.len() == SEARCHED_MAX).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_it_is_cut() {
        let answer = b"-ERR +PO+PONG\r\n";
        for cut in 0..answer.len() {
            let mut search = Search::new(b"+PONG");
            let (first, second) = answer.split_at(cut);
            let found = search.feed(first).or_else(|| search.feed(second));
            assert_eq!(found, Some(true), "cut at {cut}");
            assert!(b"\r\n".starts_with(search.rest()), "cut at {cut}");
        }
    }

    #[test]
    fn what_comes_after_64_kib_is_not_searched() {
        let mut search = Search::new(b"ab");
        assert_eq!(search.feed(&[b'a'; SEARCHED_MAX - 1]), None);
        assert_eq!(search.feed(b"ab"), Some(false));
        let mut search = Search::new(b"ab");
        assert_eq!(search.feed(&[b'a'; SEARCHED_MAX - 1]), None);
        assert_eq!(search.feed(b"b"), Some(true));
    }
}
