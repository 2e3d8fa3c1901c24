//! Tables that are written page by page, so that a long one needs no more memory than a page.

use super::output::Output;

/// Space between columns.
const GAP: usize = 2;

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

    /// Writes rows, the head before the first.
    pub(crate) fn write(&mut self, rows: &[[String; N]], out: &mut Output) {
        self.widths = self.widened(rows);
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

    fn row(&self, cells: &[String; N], out: &mut Output) {
        let mut line = String::new();
        for (cell, column) in cells.iter().zip(self.widths) {
            line.push_str(cell);
            let pad = (column + GAP).saturating_sub(width(cell));
            line.extend(std::iter::repeat_n(' ', pad));
        }
        out.line(line.trim_end());
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
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
}
