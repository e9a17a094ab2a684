//! Columns that line up.

/// A table for people. Columns are as wide as their widest cell.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    title: &'static str,
    right: bool,
}

impl Table {
    /// Titles of the columns; a `>` in front aligns one to the right.
    pub(super) fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| match title.strip_prefix('>') {
            Some(title) => Column { title, right: true },
            None => Column { title, right: false },
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table, each with its newline.
    pub(super) fn render(&self) -> String {
        let width = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(self.columns.get(index).map_or(0, |column| column.title.len()))
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let titles = self.columns.iter().map(|column| column.title).collect();
        let mut text = self.line(titles, &widths);
        for row in &self.rows {
            text += &self.line(row.iter().map(String::as_str).collect(), &widths);
        }
        text
    }

    fn line(&self, cells: Vec<&str>, widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, column), width) in cells.into_iter().zip(&self.columns).zip(widths) {
            let cell =
                if column.right { format!("{cell:>width$}") } else { format!("{cell:width$}") };
            line += &cell;
            line += "  ";
        }
        let mut line = line.trim_end().to_owned();
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", ">RTT", "VIA"]);
        table.row(["mediaone".into(), "7.5".into(), "direct".into()]);
        table.row(["é".into(), "112.5".into(), "utah".into()]);
        let expected = "\
NAME        RTT  VIA
mediaone    7.5  direct
é         112.5  utah
";
        assert_eq!(table.render(), expected);
    }
}
