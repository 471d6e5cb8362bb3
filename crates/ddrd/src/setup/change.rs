//! One file that changes, and how that is shown.

/// Lines of a file that stay, shown around those that change.
const CONTEXT_LINES: usize = 3;

/// A file before and after. Nothing stands for a file that is not there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The file, as a program on the machine names it.
    pub path: String,
    /// What it says now.
    pub old: Option<String>,
    /// What it is to say.
    pub new: Option<String>,
}

impl Change {
    /// The change as `diff -u` shows it, in one hunk.
    #[must_use]
    pub fn diff(&self) -> String {
        let (old, new) = (lines(self.old.as_ref()), lines(self.new.as_ref()));
        let head = common(old.iter().zip(&new));
        let tail = common(old[head..].iter().rev().zip(new[head..].iter().rev()));
        let from = head.saturating_sub(CONTEXT_LINES);
        let kept = tail.min(CONTEXT_LINES);
        let (old_to, new_to) = (old.len() - tail, new.len() - tail);
        let mut out = format!("--- {}\n+++ {}\n", self.name(&self.old), self.name(&self.new));
        let span = |to: usize| match to + kept - from {
            0 => "0,0".to_owned(),
            count => format!("{},{count}", from + 1),
        };
        out.push_str(&format!("@@ -{} +{} @@\n", span(old_to), span(new_to)));
        let mut show = |sign: char, lines: &[&str]| {
            for line in lines {
                out.push_str(&format!("{sign}{}\n", line.trim_end_matches('\n')));
            }
        };
        show(' ', &old[from..head]);
        show('-', &old[head..old_to]);
        show('+', &new[head..new_to]);
        show(' ', &old[old_to..old_to + kept]);
        out
    }

    fn name(&self, side: &Option<String>) -> &str {
        if side.is_some() { &self.path } else { "/dev/null" }
    }
}

fn lines(text: Option<&String>) -> Vec<&str> {
    text.map(|text| text.split_inclusive('\n').collect()).unwrap_or_default()
}

fn common<'a>(pairs: impl Iterator<Item = (&'a &'a str, &'a &'a str)>) -> usize {
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: Option<&str>, new: Option<&str>) -> String {
        let (old, new) = (old.map(str::to_owned), new.map(str::to_owned));
        Change { path: "/f".into(), old, new }.diff()
    }

    #[test]
    fn a_new_file_and_a_removed_one() {
        assert_eq!(diff(None, Some("a\nb\n")), "--- /dev/null\n+++ /f\n@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(diff(Some("a\n"), None), "--- /f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n");
    }

    #[test]
    fn a_change_stands_between_three_lines_on_each_side() {
        let old = "1\n2\n3\n4\nx\n5\n6\n7\n8\n";
        let new = "1\n2\n3\n4\ny\nz\n5\n6\n7\n8\n";
        let shown = "--- /f\n+++ /f\n@@ -2,7 +2,8 @@\n 2\n 3\n 4\n-x\n+y\n+z\n 5\n 6\n 7\n";
        assert_eq!(diff(Some(old), Some(new)), shown);
    }

    #[test]
    fn repeated_lines_are_not_counted_twice() {
        assert_eq!(diff(Some("a\n"), Some("a\na\n")), "--- /f\n+++ /f\n@@ -1,1 +1,2 @@\n a\n+a\n");
    }
}
