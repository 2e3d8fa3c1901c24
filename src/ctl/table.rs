//! Tables that are written page by page, so that a long one needs no more memory than a page.

use super::output::Output;
use super::text::{cut, width};

/// Space between columns.
const GAP: usize = 2;

/// Columns are not made narrower than this.
const WIDTH_MIN: usize = 3;

/// A table's head and the widths of its columns so far.
pub(crate) struct Table<const N: usize> {
    head: [&'static str; N],
    widths: [usize; N],
    begun: bool,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self { head, widths: head.map(width), begun: false }
    }

    /// Whether these rows fit into so many columns of a terminal.
    pub(crate) fn fits(&self, rows: &[[String; N]], columns: Option<usize>) -> bool {
        let Some(columns) = columns else { return true };
        let widths = self.widened(rows);
        widths.iter().sum::<usize>() + GAP * N.saturating_sub(1) <= columns
    }

    /// Writes rows, the head before the first. On a terminal that is too narrow, what is widest is
    /// cut; elsewhere nothing is.
    pub(crate) fn write(&mut self, rows: &[[String; N]], out: &mut Output) {
        self.widths = self.widened(rows);
        if let Some(columns) = out.columns {
            self.narrow(columns);
        }
        if !self.begun {
            self.begun = true;
            let head = self.head.map(str::to_owned);
            self.row(&head, out);
        }
        for row in rows {
            self.row(row, out);
        }
    }

    fn widened(&self, rows: &[[String; N]]) -> [usize; N] {
        let mut widths = self.widths;
        for row in rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        widths
    }

    /// Takes from the widest column, of equal ones the last, until all fit.
    fn narrow(&mut self, columns: usize) {
        let room = columns.saturating_sub(GAP * N.saturating_sub(1));
        while self.widths.iter().sum::<usize>() > room {
            match self.widths.iter_mut().max_by_key(|width| **width) {
                Some(widest) if *widest > WIDTH_MIN => *widest -= 1,
                _ => return,
            }
        }
    }

    fn row(&self, cells: &[String; N], out: &mut Output) {
        let mut line = String::new();
        for (cell, column) in cells.iter().zip(self.widths) {
            let cell = cut(cell, column);
            line.push_str(&cell);
            let pad = (column + GAP).saturating_sub(width(&cell));
            line.extend(std::iter::repeat_n(' ', pad));
        }
        out.line(line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_nothing_trails() {
        let mut out = Output::new();
        let mut table = Table::new(["A", "B"]);
        let rows = [["xyz".to_owned(), "1".to_owned()], ["é".to_owned(), String::new()]];
        assert!(table.fits(&rows, Some(6)));
        assert!(!table.fits(&rows, Some(5)));
        table.write(&rows, &mut out);
        table.write(&[["wider".to_owned(), "2".to_owned()]], &mut out);
        assert_eq!(String::from_utf8_lossy(out.buffer()), "A    B\nxyz  1\né\nwider  2\n");
    }

    #[test]
    fn what_takes_two_columns_a_character_is_aligned_by_them() {
        let mut out = Output::new();
        let rows = [["日本", "1"], ["abc", "2"]].map(|row| row.map(str::to_owned));
        Table::new(["A", "B"]).write(&rows, &mut out);
        assert_eq!(String::from_utf8_lossy(out.buffer()), "A     B\n日本  1\nabc   2\n");
    }

    #[test]
    fn on_a_narrow_terminal_the_widest_is_cut() {
        let rows = [["alice", "a long way to go", "1"]].map(|row| row.map(str::to_owned));
        let written = |columns| {
            let mut out = Output::new();
            out.columns = columns;
            Table::new(["A", "B", "N"]).write(&rows, &mut out);
            String::from_utf8_lossy(out.buffer()).into_owned()
        };
        let whole = "A      B                 N\nalice  a long way to go  1\n";
        assert_eq!((&*written(None), &*written(Some(26))), (whole, whole));
        assert_eq!(written(Some(20)), "A      B           N\nalice  a long wa…  1\n");
        assert_eq!(written(Some(12)), "A     B    N\nali…  a …  1\n");
    }
}
