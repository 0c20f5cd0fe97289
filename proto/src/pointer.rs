//! JSON Pointers (RFC 6901): the name of one place in a JSON document, like `/data/posts/0/body`.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use undertone_error::{Error, ErrorKind, Result};

/// One place below the root of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    /// Never empty.
    tokens: Vec<Token>,
}

/// One step down: a member of an object, or an element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    name: String,
    index: Option<usize>,
}

impl Pointer {
    /// The member `name` of the root.
    pub(crate) fn member(name: &str) -> Self {
        let text = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        Self { text, tokens: vec![Token::new(name.to_owned())] }
    }

    /// Whether it is the member `name` of the root.
    pub(crate) fn is_member(&self, name: &str) -> bool {
        self.as_member() == Some(name)
    }

    /// Its name, if it is a member of the root.
    pub(crate) fn as_member(&self) -> Option<&str> {
        match self.tokens.as_slice() {
            [token] => Some(&token.name),
            _ => None,
        }
    }

    /// What stands there, if anything does.
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.tokens.iter().try_fold(document, |value, token| match value {
            Value::Object(fields) => fields.get(&token.name),
            Value::Array(items) => items.get(token.index?),
            _ => None,
        })
    }

    /// Takes out what stands there, and objects and arrays that have nothing left in them. The other elements of an array
    /// keep their places: null stands where one was taken.
    pub fn remove(&self, document: &mut Value) {
        remove(document, &self.tokens);
    }
}

/// Whether nothing is left of `value`.
fn remove(value: &mut Value, tokens: &[Token]) -> bool {
    let Some((token, rest)) = tokens.split_first() else { return true };
    match value {
        Value::Object(fields) => {
            if !fields.get_mut(&token.name).is_some_and(|below| remove(below, rest)) {
                return false;
            }
            fields.shift_remove(&token.name);
            fields.is_empty()
        }
        Value::Array(items) => {
            let Some(below) = token.index.and_then(|index| items.get_mut(index)) else { return false };
            if !remove(below, rest) {
                return false;
            }
            *below = Value::Null;
            items.iter().all(Value::is_null)
        }
        _ => false,
    }
}

impl Token {
    fn new(name: String) -> Self {
        let digits = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
        let index = if digits { name.parse().ok() } else { None };
        Self { name, index }
    }
}

impl FromStr for Pointer {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for what is no JSON Pointer, and for the empty one, which names the whole document.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(ErrorKind::InvalidConfig, "path is no JSON Pointer").with("path", text);
        let Some(path) = text.strip_prefix('/') else {
            // What most people write first: a name, a dotted path, or JSONPath.
            let meant = text.trim_start_matches(['$', '#', '.', '/']).replace('.', "/");
            let meant = if meant.is_empty() { "body" } else { &meant };
            return Err(bad().help(format!("write it as in RFC 6901, like /{meant}")));
        };
        let mut tokens = Vec::new();
        for token in path.split('/') {
            if !token.split('~').skip(1).all(|escaped| escaped.starts_with(['0', '1'])) {
                return Err(bad().help("write ~0 for ~ and ~1 for / inside a name"));
            }
            tokens.push(Token::new(token.replace("~1", "/").replace("~0", "~")));
        }
        Ok(Self { text: text.to_owned(), tokens })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        text.parse().expect("a JSON Pointer")
    }

    #[test]
    fn the_examples_of_rfc_6901_hold() {
        let document = json!({"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
                              "k\"l": 6, " ": 7, "m~n": 8});
        let cases = [
            ("/foo", json!(["bar", "baz"])),
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/e^f", json!(3)),
            ("/g|h", json!(4)),
            ("/i\\j", json!(5)),
            ("/k\"l", json!(6)),
            ("/ ", json!(7)),
            ("/m~0n", json!(8)),
        ];
        for (text, wanted) in cases {
            assert_eq!(pointer(text).find(&document), Some(&wanted), "{text}");
        }
        for absent in ["/foo/2", "/foo/00", "/foo/-", "/foo/+1", "/foo/bar", "/bar", "/foo/0/x", "/m~01n"] {
            assert_eq!(pointer(absent).find(&document), None, "{absent}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused_with_what_was_meant() {
        let cases = [
            ("", "like /body"),
            ("body", "like /body"),
            ("data.body", "like /data/body"),
            ("$.data.body", "like /data/body"),
            ("#/data/body", "like /data/body"),
            ("/a~b", "~0"),
            ("/a~", "~0"),
        ];
        for (text, help) in cases {
            let error = text.parse::<Pointer>().expect_err("no JSON Pointer");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(help), "{text}: {error}");
        }
    }

    #[test]
    fn removing_leaves_the_rest_where_it_is() {
        let cases = [
            ("/a", json!({"a": 1, "b": 2}), json!({"b": 2})),
            ("/a/b", json!({"a": {"b": 1}, "c": 2}), json!({"c": 2})),
            ("/a/b", json!({"a": {"b": 1, "d": 3}}), json!({"a": {"d": 3}})),
            ("/a/0", json!({"a": [1, 2]}), json!({"a": [null, 2]})),
            ("/a/0/b", json!({"a": [{"b": 1}]}), json!({})),
            ("/a/1/b", json!({"a": [1, {"b": 1}]}), json!({"a": [1, null]})),
            ("/a/x", json!({"a": {}}), json!({"a": {}})),
            ("/x", json!({"a": []}), json!({"a": []})),
        ];
        for (text, mut document, wanted) in cases {
            let shown = document.to_string();
            pointer(text).remove(&mut document);
            assert_eq!(document, wanted, "{text} in {shown}");
        }
    }

    proptest! {
        #[test]
        fn serde_json_finds_the_same(text in "(/[ab01~/]{0,2}){1,4}") {
            let document = json!({"a": {"b": [0, {"a": 1, "0": 2}], "a/b": 3, "~": 4}, "b": [[5, 6], {"": 7}], "0": 8});
            if let Ok(pointer) = text.parse::<Pointer>() {
                prop_assert_eq!(pointer.find(&document), document.pointer(&text));
                prop_assert_eq!(pointer.to_string(), text);
                let mut rest = document.clone();
                pointer.remove(&mut rest);
                prop_assert!(pointer.find(&rest).is_none_or(Value::is_null));
            }
        }

        #[test]
        fn a_member_is_found_whatever_its_name(name: String) {
            let document = json!({ name.clone(): 1 });
            let member = Pointer::member(&name);
            prop_assert_eq!(member.find(&document), Some(&json!(1)));
            prop_assert_eq!(member.to_string().parse::<Pointer>().expect("a JSON Pointer"), member);
        }
    }
}
