//! The text format of Prometheus, 0.0.4: one family after another, each with its HELP and TYPE.

use std::fmt::{Display, Write as _};

/// Text as it grows.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
    /// The family that is being written.
    name: &'static str,
}

impl Text {
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.family(name, help, "gauge")
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.family(name, help, "counter")
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.family(name, help, "histogram")
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> &mut Self {
        self.name = name;
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// The one value of the family.
    pub(super) fn value(&mut self, value: impl Display) {
        self.part("", &[], None, value);
    }

    /// A value of the family.
    pub(super) fn labelled(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, None, value);
    }

    /// A value of a name that begins with the family's; `le` is the upper bound of a bucket.
    pub(super) fn part(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        le: Option<f64>,
        value: impl Display,
    ) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut opener = '{';
        for (label, value) in labels {
            // Values are words of this program and of resources' names: nothing is there to be escaped.
            let _ = write!(self.out, "{opener}{label}=\"{value}\"");
            opener = ',';
        }
        if let Some(le) = le {
            let _ = if le.is_infinite() {
                write!(self.out, "{opener}le=\"+Inf\"")
            } else {
                write!(self.out, "{opener}le=\"{le}\"")
            };
            opener = ',';
        }
        if opener == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    pub(super) fn done(self) -> String {
        self.out
    }
}
