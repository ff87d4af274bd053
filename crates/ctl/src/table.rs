//! Tables as kubectl prints them: columns aligned with blanks, headings in capitals, nothing drawn.

use comfy_table::{ContentArrangement, Table, presets};

/// Blanks between two columns.
const GAP: u16 = 3;

fn rendered(table: &mut Table) -> String {
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.trim_fmt() + "\n"
}

/// A table with headings. Line breaks and other control characters in cells are written as escapes.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.set_header(headings.map(str::to_owned).to_vec());
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell)).to_vec());
    }
    rendered(&mut table)
}

/// Names and values, one pair to a line.
pub(crate) fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    for (name, value) in pairs {
        table.add_row(vec![name.to_owned(), plain(&value)]);
    }
    rendered(&mut table)
}

/// A table with headings and any number of columns, in which empty cells stay empty.
pub(crate) fn columns(headings: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.set_header(headings.iter().map(|heading| escaped(heading)).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.iter().map(|cell| escaped(cell)).collect::<Vec<_>>());
    }
    rendered(&mut table)
}

/// Text that another machine sent, made harmless for a terminal; an empty cell shows as "-".
pub(crate) fn plain(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    escaped(text)
}

/// The same, but nothing stays nothing.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// A text in lines of at most so many columns, broken at blanks, those after the first one indented; what has no blank is
/// left as it is.
pub(crate) fn wrapped(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let blanks = after.len() - after.trim_start_matches(' ').len();
        let (gap, next) = after.split_at(blanks);
        if line.trim_end().chars().count() > indent && line.chars().count() + word.chars().count() > width {
            lines.push(line.trim_end().to_owned());
            line = " ".repeat(indent);
        }
        line.push_str(word);
        line.push_str(gap);
        rest = next;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_is_drawn() {
        let rows = [["web".to_owned(), "1".to_owned()], ["a-long-name".to_owned(), String::new()]];
        assert_eq!(
            table(["NAME", "BACKENDS"], rows),
            "NAME          BACKENDS\n\
             web           1\n\
             a-long-name   -\n"
        );
    }

    #[test]
    fn a_table_without_rows_has_its_headings() {
        assert_eq!(table(["NAME", "ID"], []), "NAME   ID\n");
    }

    #[test]
    fn fields_stand_below_one_another() {
        assert_eq!(
            fields([("NAME", "web".to_owned()), ("REVISION", "12".to_owned())]),
            "NAME       web\nREVISION   12\n"
        );
    }

    #[test]
    fn long_lines_are_broken_at_blanks() {
        assert_eq!(wrapped("one two  three four", 9, 2), ["one two", "  three", "  four"]);
        assert_eq!(wrapped("0123456789 x", 5, 2), ["0123456789", "  x"]);
        assert_eq!(
            (wrapped("short", 80, 2), wrapped("", 80, 2)),
            (vec!["short".to_owned()], vec![String::new()])
        );
        // A table's gaps stay.
        assert_eq!(wrapped("NAME   ID", 80, 2), ["NAME   ID"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(table(["REASON"], [["a\u{1b}[2Jb\nc".to_owned()]]), "REASON\na\\u{1b}[2Jb\\nc\n");
    }
}
