//! How a format's parser takes an element apart without overlooking anything.
//!
//! A [`Take`] hands out attributes, elements and text by name, and [`Take::finish`] refuses what
//! nobody asked for. The names that were asked for are the ones its errors offer, so they are
//! never out of date.

use std::fmt;
use std::str::FromStr;

use super::error::{Mistake, XmlError};
use super::place::Place;
use super::read::{Attribute, Element};

/// An element that is being taken apart; ends with [`Take::finish`].
#[derive(Debug)]
#[must_use = "finish() refuses what was not taken"]
pub struct Take<'a> {
    element: &'a Element,
    attributes: Vec<&'static str>,
    children: Vec<&'static str>,
    text: bool,
}

impl<'a> Take<'a> {
    /// Starts with an element of which nothing is known yet.
    pub fn new(element: &'a Element) -> Self {
        Take { element, attributes: Vec::new(), children: Vec::new(), text: false }
    }

    /// Starts with a document.
    ///
    /// # Errors
    /// When it is another one than `expected`.
    pub fn root(element: &'a Element, expected: &'static str) -> Result<Self, XmlError> {
        if element.name == expected {
            return Ok(Take::new(element));
        }
        let what = Mistake::Root { found: element.name.clone(), expected };
        Err(XmlError { place: element.place, what })
    }

    /// The element.
    pub fn element(&self) -> &'a Element {
        self.element
    }

    /// Where the element is.
    pub fn place(&self) -> Place {
        self.element.place
    }

    /// The attribute of that name.
    pub fn attribute(&mut self, name: &'static str) -> Option<&'a Attribute> {
        self.attributes.push(name);
        self.element.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// The attribute of that name as a value.
    ///
    /// # Errors
    /// When the value is none of `T`; the text is `T`'s own error.
    pub fn value<T>(&mut self, name: &'static str) -> Result<Option<T>, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.value_with(name, |text| text.parse())
    }

    /// The attribute of that name as a value that `read` makes of it.
    ///
    /// # Errors
    /// When `read` refuses it; the text is its error.
    pub fn value_with<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, XmlError> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        read(&attribute.value).map(Some).map_err(|why| self.wrong(attribute, why))
    }

    /// As [`Take::value`], of an attribute that must be there.
    ///
    /// # Errors
    /// When it is not, or its value is none of `T`.
    pub fn required<T>(&mut self, name: &'static str) -> Result<T, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let value = self.value(name)?;
        value.ok_or_else(|| self.missing(name))
    }

    /// An attribute that is `yes` or `no`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn yes_no(&mut self, name: &'static str) -> Result<Option<bool>, XmlError> {
        self.choice(name, &[("yes", true), ("no", false)])
    }

    /// An attribute with one of these values.
    ///
    /// # Errors
    /// When it is anything else.
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

    /// The element of that name, of which there can be one.
    ///
    /// # Errors
    /// When there are more.
    pub fn child(&mut self, name: &'static str) -> Result<Option<&'a Element>, XmlError> {
        let mut found = self.children(name);
        let Some(first) = found.next() else { return Ok(None) };
        match found.next() {
            None => Ok(Some(first)),
            Some(second) => {
                let what = Mistake::Repeated {
                    name: name.to_owned(),
                    parent: self.element.name.clone(),
                    first: first.place,
                };
                Err(XmlError { place: second.place, what })
            }
        }
    }

    /// The elements of that name, in the document's order.
    pub fn children(&mut self, name: &'static str) -> impl Iterator<Item = &'a Element> + use<'a> {
        self.children.push(name);
        self.element.children.iter().filter(move |child| child.name == name)
    }

    /// The elements of all these names, in the document's order.
    pub fn children_of(
        &mut self,
        names: &'static [&'static str],
    ) -> impl Iterator<Item = &'a Element> + use<'a> {
        let new = names.iter().filter(|name| !self.children.contains(name));
        self.children.extend(new.copied().collect::<Vec<_>>());
        self.element.children.iter().filter(|child| names.contains(&child.name.as_str()))
    }

    /// The element's text, as it is.
    pub fn text(&mut self) -> &'a str {
        self.text = true;
        &self.element.text
    }

    /// The element's text as a value.
    ///
    /// # Errors
    /// When the text is none of `T`.
    pub fn text_value<T>(&mut self) -> Result<T, XmlError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let place = self.element.text_place.unwrap_or(self.element.place);
        let name = format!("<{}>", self.element.name);
        let read = self.text().parse();
        read.map_err(|why: T::Err| XmlError {
            place,
            what: Mistake::Value { name, why: why.to_string() },
        })
    }

    /// Refuses elements that the format has and netlaunch does not.
    ///
    /// # Errors
    /// When there is one of them.
    pub fn refuse_children(&mut self, names: &[&'static str]) -> Result<(), XmlError> {
        let known = |child: &&Element| names.contains(&child.name.as_str());
        match self.element.children.iter().find(known) {
            None => Ok(()),
            Some(child) => Err(XmlError {
                place: child.place,
                what: Mistake::Unsupported { what: format!("<{}>", child.name), fix: "remove it" },
            }),
        }
    }

    /// Refuses attributes that the format has and netlaunch does not.
    ///
    /// # Errors
    /// When there is one of them.
    pub fn refuse_attributes(&mut self, names: &[&'static str]) -> Result<(), XmlError> {
        let known = |attribute: &&Attribute| names.contains(&attribute.name.as_str());
        match self.element.attributes.iter().find(known) {
            None => Ok(()),
            Some(attribute) => {
                let what = format!("the attribute {} of <{}>", attribute.name, self.element.name);
                let what = Mistake::Unsupported { what, fix: "remove it" };
                Err(XmlError { place: attribute.place, what })
            }
        }
    }

    /// The error that the value of an attribute of this element is wrong.
    pub fn wrong(&self, attribute: &Attribute, why: impl fmt::Display) -> XmlError {
        let name = format!("{} of <{}>", attribute.name, self.element.name);
        let what = Mistake::Value { name, why: why.to_string() };
        XmlError { place: attribute.value_place, what }
    }

    /// The error that this element itself is wrong.
    pub fn bad(&self, why: impl fmt::Display) -> XmlError {
        let name = format!("<{}>", self.element.name);
        let what = Mistake::Value { name, why: why.to_string() };
        XmlError { place: self.element.place, what }
    }

    /// The error that an attribute must be there.
    pub fn missing(&self, name: &'static str) -> XmlError {
        let what = Mistake::MissingAttribute { name, element: self.element.name.clone() };
        XmlError { place: self.element.place, what }
    }

    /// The error that an element must be there.
    pub fn missing_child(&self, name: &'static str) -> XmlError {
        let what = Mistake::MissingElement { name, parent: self.element.name.clone() };
        XmlError { place: self.element.place, what }
    }

    /// Refuses what was not taken: the first of it in the document.
    ///
    /// # Errors
    /// The [`XmlError`] that names it.
    pub fn finish(self) -> Result<(), XmlError> {
        let element = self.element;
        if let Some(attribute) =
            element.attributes.iter().find(|a| !self.attributes.contains(&a.name.as_str()))
        {
            let what = Mistake::UnknownAttribute {
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
                let what = Mistake::UnknownElement {
                    name: child.name.clone(),
                    parent: element.name.clone(),
                    known: self.children,
                };
                Err(XmlError { place: child.place, what })
            }
            (_, Some(place)) => Err(XmlError { place, what: Mistake::Text(element.name.clone()) }),
            _ => Ok(()),
        }
    }
}

impl Element {
    /// Reads this element with `read`, then refuses what `read` did not take.
    ///
    /// # Errors
    /// Those of `read`, and that of [`Take::finish`].
    pub fn take<'a, T>(
        &'a self,
        read: impl FnOnce(&mut Take<'a>) -> Result<T, XmlError>,
    ) -> Result<T, XmlError> {
        let mut take = Take::new(self);
        let value = read(&mut take)?;
        take.finish()?;
        Ok(value)
    }
}
