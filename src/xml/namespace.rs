//! The declarations of namespaces that are in scope at a place of a document (Namespaces in XML
//! 1.0).
//!
//! A format has a table of the namespaces that it knows ([`Format`]). The reader replaces the
//! prefix of such an element by the one of the table, whatever prefix the document uses.

use std::collections::BTreeMap;

use super::error::XmlErrorKind;
use super::grammar::check_name;
use super::limits::{MAX_BYTES, MAX_NODES};
use super::read::{Attribute, Element, Tree};

/// The differences between formats that the reader must know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format {
    /// The child elements of the root whose content is kept and never interpreted.
    pub kept: &'static [&'static str],
    /// The known namespaces: each URI with the prefix that the format's parser uses.
    pub namespaces: &'static [(&'static str, &'static str)],
}

impl Format {
    /// Returns the parser's prefix for a namespace, if the format knows it.
    pub(super) fn prefix(&self, uri: &str) -> Option<&'static str> {
        self.namespaces.iter().find(|(known, _)| *known == uri).map(|(_, prefix)| *prefix)
    }
}

/// The declarations in scope. An empty prefix is the default namespace.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The declarations of each prefix, the innermost last, with the depth of the element.
    declared: BTreeMap<String, Vec<(usize, String)>>,
    /// The prefixes that the elements at each depth declare.
    depths: Vec<(usize, String)>,
}

impl Scope {
    /// Declares a prefix for the element at `depth` and its content.
    pub(super) fn declare(&mut self, depth: usize, prefix: &str, uri: &str) {
        let all = self.declared.entry(prefix.to_owned()).or_default();
        all.push((depth, uri.to_owned()));
        self.depths.push((depth, prefix.to_owned()));
    }

    /// Ends the declarations of the elements at `depth` and below.
    pub(super) fn leave(&mut self, depth: usize) {
        while let Some((_, prefix)) = self.depths.pop_if(|(at, _)| *at >= depth) {
            if let Some(all) = self.declared.get_mut(&prefix) {
                all.pop();
            }
        }
    }

    /// Returns the namespace of a prefix and the depth of the element that declares it. A default
    /// namespace that is empty is none.
    pub(super) fn get(&self, prefix: &str) -> Option<(usize, &str)> {
        let (depth, uri) = self.declared.get(prefix)?.last()?;
        (!uri.is_empty()).then_some((*depth, uri))
    }
}

impl Tree<'_> {
    /// Returns whether the content of the innermost open element is kept.
    pub(super) fn keeps(&self) -> bool {
        self.open.get(1).is_some_and(|element| self.format.kept.contains(&element.name.as_str()))
    }

    /// Returns the innermost open element if its content is kept.
    pub(super) fn open_kept(&mut self) -> Option<&mut Element> {
        if self.keeps() { self.open.last_mut() } else { None }
    }

    /// Checks the name of an attribute of the element that begins, and declares its namespace.
    /// Returns whether the element keeps the attribute: a declaration belongs to kept content only.
    pub(super) fn attribute(&mut self, name: &str, value: &str) -> Result<bool, XmlErrorKind> {
        let kept = self.keeps();
        let prefix = name.strip_prefix("xmlns:");
        if let Some(prefix) = prefix.or((name == "xmlns").then_some("")) {
            if name != "xmlns" {
                check_name(prefix)?;
            } else if !kept && self.format.prefix(value).is_none() {
                return Err(XmlErrorKind::Namespace(name.to_owned()));
            }
            self.scope.declare(self.open.len(), prefix, value);
            return Ok(kept);
        }
        match name.split_once(':') {
            Some((prefix, local)) if kept => check_name(prefix).and_then(|()| check_name(local))?,
            _ => check_name(name)?,
        }
        Ok(true)
    }

    /// Checks the name of the element that begins, whose declarations are in scope already. Returns
    /// the name for the parser.
    pub(super) fn name(&self, name: &str) -> Result<String, XmlErrorKind> {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        if self.keeps() {
            if !prefix.is_empty() || name.starts_with(':') {
                check_name(prefix)?;
            }
            check_name(local)?;
            return Ok(name.to_owned());
        }
        let known = self.scope.get(prefix).and_then(|(_, uri)| self.format.prefix(uri));
        match known {
            Some(known) if !name.starts_with(':') => {
                check_name(local)?;
                Ok(format!("{known}:{local}"))
            }
            _ => {
                check_name(name)?;
                Ok(name.to_owned())
            }
        }
    }

    /// Declares the prefixes of a kept element on the child of the kept element that contains it,
    /// if only the elements around that child declare them.
    pub(super) fn borrow(&mut self, element: &mut Element) -> Result<(), XmlErrorKind> {
        let depth = self.open.len();
        if depth == 2 {
            self.borrowed.clear();
        }
        let names = element.attributes.iter().map(|a| a.name.as_str());
        let names = names.filter(|name| !name.starts_with("xmlns:"));
        let prefixes = names.chain([element.name.as_str()]).filter_map(|n| n.split_once(':'));
        let mut added = Vec::new();
        for (prefix, _) in prefixes.filter(|(prefix, _)| *prefix != "xml") {
            let Some((declared, uri)) = self.scope.get(prefix) else {
                return Err(XmlErrorKind::Undeclared(prefix.to_owned()));
            };
            if declared < 2 && self.borrowed.insert(prefix.to_owned()) {
                self.borrowed_bytes += prefix.len() + uri.len();
                self.nodes += 1;
                if self.borrowed_bytes > MAX_BYTES || self.nodes > MAX_NODES {
                    return Err(XmlErrorKind::TooMany);
                }
                let (place, value_place) = (element.place, element.place);
                let (name, value) = (format!("xmlns:{prefix}"), uri.to_owned());
                added.push(Attribute { name, value, place, value_place });
            }
        }
        self.open.get_mut(2).unwrap_or(element).attributes.extend(added);
        Ok(())
    }
}
