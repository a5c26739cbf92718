//! What a family of series is, and how families are declared.

/// What the numbers of a family mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are a distribution of seconds.
    Histogram,
}

/// Declares every family, each as `Variant = Kind "name": "what it counts";`.
macro_rules! families {
    ($($variant:ident = $kind:ident $name:literal: $help:literal;)+) => {
        /// A family of series: what they have in common but their labels and values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Family {
            $(#[doc = $help] $variant,)+
        }

        impl Family {
            /// Every family, in the order of the page.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Its name, kind and help.
            pub const fn about(self) -> (&'static str, FamilyKind, &'static str) {
                match self {
                    $(Self::$variant => ($name, FamilyKind::$kind, $help),)+
                }
            }
        }
    };
}

pub(super) use families;
