//! Macros for types whose text is checked once, when the value is made.

/// Defines the type `$name` for texts that the function `$valid` accepts.
///
/// Parsing any other text fails with `$error::$variant`, which holds that text. The type parses,
/// displays and serializes as text.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $error:ident::$variant:ident, $valid:expr) => {
        $(#[$doc])*
        #[derive(
            Debug,
            Clone,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            serde::Serialize,
            serde::Deserialize
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok($name(text.to_owned()))
                } else {
                    Err($error::$variant(text.to_owned()))
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        $crate::types::checked_text::string_conversions!($name, $error);
    };
}
pub(crate) use checked_text;

/// Implements the conversions from and to `String`, which serde needs, for a type that parses with
/// `$error` and displays as the same text.
macro_rules! string_conversions {
    ($name:ident, $error:ident) => {
        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}
pub(crate) use string_conversions;
