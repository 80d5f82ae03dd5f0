//! A reader of one element that reports each part that the parser of a format does not know.
//!
//! An [`ElementReader`] returns attributes, elements and text by name, and it remembers each name
//! that the parser asks for. Then [`ElementReader::finish`] refuses the first part with another
//! name. Its error offers the remembered names, so the offer always matches the parser.
//!
//! A parser that forgets [`ElementReader::finish`] would accept unknown parts; [`Element::take`]
//! calls it.

use std::fmt;
use std::str::FromStr;

use super::error::{XmlError, XmlErrorKind};
use super::foreign::Foreign;
use super::position::Position;
use super::read::{Attribute, Element};

/// An element whose parts a parser takes by name; the parser ends with [`ElementReader::finish`].
#[derive(Debug)]
#[must_use = "finish() refuses what was not taken"]
pub struct ElementReader<'a> {
    element: &'a Element,
    attributes: Vec<&'static str>,
    children: Vec<&'static str>,
    text: bool,
}

impl<'a> ElementReader<'a> {
    /// Starts with an element of which no name is known yet.
    pub fn new(element: &'a Element) -> Self {
        ElementReader { element, attributes: Vec::new(), children: Vec::new(), text: false }
    }

    /// Starts with the root element of a document.
    ///
    /// # Errors
    /// [`XmlErrorKind::Root`] if the element's name is not `expected`.
    pub fn root(element: &'a Element, expected: &'static str) -> Result<Self, XmlError> {
        if element.name == expected {
            return Ok(ElementReader::new(element));
        }
        let what = XmlErrorKind::Root { found: element.name.clone(), expected };
        Err(XmlError { place: element.place, what })
    }

    /// Returns the element.
    pub fn element(&self) -> &'a Element {
        self.element
    }

    /// Returns the place of the element.
    pub fn place(&self) -> Position {
        self.element.place
    }

    /// Returns the attribute with this name.
    pub fn attribute(&mut self, name: &'static str) -> Option<&'a Attribute> {
        self.attributes.push(name);
        self.element.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// Returns the attribute with this name, parsed as a `T`.
    ///
    /// # Errors
    /// [`XmlErrorKind::Value`] with the parser's error if the value is not a `T`.
    pub fn value<T>(&mut self, name: &'static str) -> Result<Option<T>, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.value_with(name, |text| text.parse())
    }

    /// Returns the attribute with this name, parsed by `read`.
    ///
    /// # Errors
    /// [`XmlErrorKind::Value`] with the error of `read` if `read` refuses the value.
    pub fn value_with<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, XmlError> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        read(&attribute.value).map(Some).map_err(|why| self.wrong(attribute, why))
    }

    /// Returns the attribute with this name, parsed as a `T`; it must be present.
    ///
    /// # Errors
    /// [`XmlErrorKind::MissingAttribute`] if it is missing; [`XmlErrorKind::Value`] if its value is
    /// not a `T`.
    pub fn required<T>(&mut self, name: &'static str) -> Result<T, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let value = self.value(name)?;
        value.ok_or_else(|| self.missing(name))
    }

    /// Returns the attribute with this name, whose value must be `yes` or `no`.
    ///
    /// # Errors
    /// [`XmlErrorKind::Value`] for any other value.
    pub fn yes_no(&mut self, name: &'static str) -> Result<Option<bool>, XmlError> {
        self.choice(name, &[("yes", true), ("no", false)])
    }

    /// Returns the attribute with this name, whose value must be one of `choices`.
    ///
    /// # Errors
    /// [`XmlErrorKind::Value`] for any other value.
    pub fn choice<T: Clone>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, XmlError> {
        self.value_with(name, |text| {
            let found = choices.iter().find(|(choice, _)| *choice == text);
            found.map(|(_, value)| value.clone()).ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
                format!("{text:?} is not a value of it: use {}", names.join(" or "))
            })
        })
    }

    /// Returns the child element with this name; the format allows one at most.
    ///
    /// # Errors
    /// [`XmlErrorKind::Repeated`] if there is a second one.
    pub fn child(&mut self, name: &'static str) -> Result<Option<&'a Element>, XmlError> {
        let mut found = self.children(name);
        let Some(first) = found.next() else { return Ok(None) };
        match found.next() {
            None => Ok(Some(first)),
            Some(second) => {
                let what = XmlErrorKind::Repeated {
                    name: name.to_owned(),
                    parent: self.element.name.clone(),
                    first: first.place,
                };
                Err(XmlError { place: second.place, what })
            }
        }
    }

    /// Returns the child elements with this name, in the order of the document.
    pub fn children(&mut self, name: &'static str) -> impl Iterator<Item = &'a Element> + use<'a> {
        self.children.push(name);
        self.element.children.iter().filter(move |child| child.name == name)
    }

    /// Returns the child elements with any of these names, in the order of the document.
    pub fn children_of(
        &mut self,
        names: &'static [&'static str],
    ) -> impl Iterator<Item = &'a Element> + use<'a> {
        let new = names.iter().filter(|name| !self.children.contains(name));
        self.children.extend(new.copied().collect::<Vec<_>>());
        self.element.children.iter().filter(|child| names.contains(&child.name.as_str()))
    }

    /// Returns the content of an element that the format keeps.
    pub fn kept(&self) -> &'a Foreign {
        &self.element.kept
    }

    /// Returns the element's text, with white space.
    pub fn text(&mut self) -> &'a str {
        self.text = true;
        &self.element.text
    }

    /// Returns the element's text, parsed as a `T`.
    ///
    /// # Errors
    /// [`XmlErrorKind::Value`] if the text is not a `T`.
    pub fn text_value<T>(&mut self) -> Result<T, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.text();
        self.value_of_text(text)
    }

    /// Returns the text without the white space around it, parsed as a `T`.
    ///
    /// # Errors
    /// [`XmlErrorKind::Value`] if the text is not a `T`.
    pub fn trimmed_value<T>(&mut self) -> Result<T, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.text().trim();
        self.value_of_text(text)
    }

    fn value_of_text<T>(&self, text: &str) -> Result<T, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let place = self.element.text_place.unwrap_or(self.element.place);
        let name = format!("<{}>", self.element.name);
        let read = text.parse();
        read.map_err(|why: T::Err| XmlError {
            place,
            what: XmlErrorKind::Value { name, why: why.to_string() },
        })
    }

    /// Refuses child elements that the format has and netlaunch does not support.
    ///
    /// # Errors
    /// [`XmlErrorKind::Unsupported`] for the first of them.
    pub fn refuse_children(&mut self, names: &[&'static str]) -> Result<(), XmlError> {
        let known = |child: &&Element| names.contains(&child.name.as_str());
        match self.element.children.iter().find(known) {
            None => Ok(()),
            Some(child) => Err(XmlError {
                place: child.place,
                what: XmlErrorKind::Unsupported {
                    what: format!("<{}>", child.name),
                    fix: "remove it",
                },
            }),
        }
    }

    /// Refuses attributes that the format has and netlaunch does not support.
    ///
    /// # Errors
    /// [`XmlErrorKind::Unsupported`] for the first of them.
    pub fn refuse_attributes(&mut self, names: &[&'static str]) -> Result<(), XmlError> {
        let known = |attribute: &&Attribute| names.contains(&attribute.name.as_str());
        match self.element.attributes.iter().find(known) {
            None => Ok(()),
            Some(attribute) => {
                let what = format!("the attribute {} of <{}>", attribute.name, self.element.name);
                let what = XmlErrorKind::Unsupported { what, fix: "remove it" };
                Err(XmlError { place: attribute.place, what })
            }
        }
    }

    /// Returns the error that an attribute of this element has a wrong value.
    pub fn wrong(&self, attribute: &Attribute, why: impl fmt::Display) -> XmlError {
        let name = format!("{} of <{}>", attribute.name, self.element.name);
        let what = XmlErrorKind::Value { name, why: why.to_string() };
        XmlError { place: attribute.value_place, what }
    }

    /// Returns the error that this element itself is wrong.
    pub fn bad(&self, why: impl fmt::Display) -> XmlError {
        let name = format!("<{}>", self.element.name);
        let what = XmlErrorKind::Value { name, why: why.to_string() };
        XmlError { place: self.element.place, what }
    }

    /// Returns the error that this element needs an attribute.
    pub fn missing(&self, name: &'static str) -> XmlError {
        let what = XmlErrorKind::MissingAttribute { name, element: self.element.name.clone() };
        XmlError { place: self.element.place, what }
    }

    /// Returns the error that this element needs a child element.
    pub fn missing_child(&self, name: &'static str) -> XmlError {
        let what = XmlErrorKind::MissingElement { name, parent: self.element.name.clone() };
        XmlError { place: self.element.place, what }
    }

    /// Refuses the first attribute, element or text that the parser did not take.
    ///
    /// An attribute comes first; between a child element and text, the one that comes first in the
    /// document.
    ///
    /// # Errors
    /// [`XmlErrorKind::UnknownAttribute`], [`XmlErrorKind::UnknownElement`] or
    /// [`XmlErrorKind::Text`].
    pub fn finish(self) -> Result<(), XmlError> {
        let element = self.element;
        if let Some(attribute) =
            element.attributes.iter().find(|a| !self.attributes.contains(&a.name.as_str()))
        {
            let what = XmlErrorKind::UnknownAttribute {
                name: attribute.name.clone(),
                element: element.name.clone(),
                known: self.attributes,
            };
            return Err(XmlError { place: attribute.place, what });
        }
        let child = element.children.iter().find(|c| !self.children.contains(&c.name.as_str()));
        let text = element.text_place.filter(|_| !self.text);
        match (child, text) {
            (Some(child), text) if text.is_none_or(|text| child.place < text) => {
                let what = XmlErrorKind::UnknownElement {
                    name: child.name.clone(),
                    parent: element.name.clone(),
                    known: self.children,
                };
                Err(XmlError { place: child.place, what })
            }
            (_, Some(place)) => {
                Err(XmlError { place, what: XmlErrorKind::Text(element.name.clone()) })
            }
            _ => Ok(()),
        }
    }
}

impl Element {
    /// Reads this element with `read`, then refuses the parts that `read` did not take.
    ///
    /// # Errors
    /// The error of `read`, or that of [`ElementReader::finish`].
    pub fn take<'a, T>(
        &'a self,
        read: impl FnOnce(&mut ElementReader<'a>) -> Result<T, XmlError>,
    ) -> Result<T, XmlError> {
        let mut reader = ElementReader::new(self);
        let value = read(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}
