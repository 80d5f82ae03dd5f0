# Builds netlaunch, installs it, and makes its packages. README.md (Installing) explains the
# targets for users, CONTRIBUTING.md (Packages) for developers.
#
#	make                  builds the program and the C library, in target/dist
#	make install          installs both; builds them first only if they are missing
#	make uninstall        removes the installed files, except the settings
#	make deb              writes dist/netlaunch_VERSION_ARCH.deb and the packages of the library
#	make static           writes dist/netlaunch-VERSION-x86_64.tar.gz; its program is static
#	make rpm              writes dist/netlaunch-VERSION-*.rpm and the packages of the library
#	make clean            removes target and dist

# Places. A package builder sets PREFIX=/usr and DESTDIR. LIBDIR is the multiarch directory there.
PREFIX = /usr/local
DESTDIR =
BINDIR = $(PREFIX)/bin
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
PKGCONFIGDIR = $(LIBDIR)/pkgconfig
DATADIR = $(PREFIX)/share
MANDIR = $(DATADIR)/man
DOCDIR = $(DATADIR)/doc/netlaunch
SCHEMADIR = $(DATADIR)/netlaunch/schema
BASHCOMPDIR = $(DATADIR)/bash-completion/completions
ZSHCOMPDIR = $(DATADIR)/zsh/site-functions
FISHCOMPDIR = $(DATADIR)/fish/vendor_completions.d
UNITDIR = $(PREFIX)/lib/systemd/system
SYSCONFDIR = /etc
# netlaunch reads its settings here.
SETTINGSDIR = $(SYSCONFDIR)/netlaunch
# firewalld reads zones and policies in these two directories and in no other.
FIREWALLDDIR = $(if $(filter /usr,$(PREFIX)),/usr/lib/firewalld,$(SYSCONFDIR)/firewalld)
APPARMORDIR = $(SYSCONFDIR)/apparmor.d

# Tools.
CARGO = cargo
CARGOFLAGS = --locked
INSTALL = install
STRIP = strip

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | sed -n 1p)
SONAME = libnetlaunch.so.0
MUSL = x86_64-unknown-linux-musl
DIST = dist
STATIC = netlaunch-$(VERSION)-x86_64
# Archives have this time, so that two builds of one commit are equal.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH

# debhelper and rpmbuild change HOME, and cargo finds its crates and rustup its compiler by HOME.
CARGO_HOME ?= $(HOME)/.cargo
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_HOME CARGO_TARGET_DIR
ifneq ($(wildcard $(HOME)/.rustup),)
RUSTUP_HOME ?= $(HOME)/.rustup
export RUSTUP_HOME
endif
# The binaries hold no path of the machine that built them.
REMAP = --remap-path-prefix=$(CARGO_HOME)=/cargo --remap-path-prefix=$(CURDIR)=/netlaunch
cargo = RUSTFLAGS='$(strip $(RUSTFLAGS) $(REMAP))' $(CARGO)

# PROGRAM, LIBRARY and ARCHIVE can name files that exist already.
PROGRAM = $(CARGO_TARGET_DIR)/dist/netlaunch
LIBRARY = $(CARGO_TARGET_DIR)/dist/libnetlaunch.so
ARCHIVE = $(CARGO_TARGET_DIR)/dist/libnetlaunch.a
NOTICES = $(CARGO_TARGET_DIR)/dist/NOTICES
STATIC_PROGRAM = $(CARGO_TARGET_DIR)/$(MUSL)/dist/netlaunch

UNITS := $(notdir $(wildcard conf/*.service))
PAGES1 := $(notdir $(wildcard man/*.1))
PAGES5 := $(notdir $(wildcard man/*.5))
SCHEMAS := $(notdir $(wildcard conf/schema/*.json))
SETTINGS := $(notdir $(wildcard conf/*.conf))
ZONES := $(notdir $(wildcard conf/firewalld/zones/*.xml))
POLICIES := $(notdir $(wildcard conf/firewalld/policies/*.xml))
PROFILES := $(notdir $(wildcard conf/apparmor/*))
DOCS := README.md CHANGELOG.md SECURITY.md LICENSE

.PHONY: all program library notices static-program
all: program library notices

program:
	$(cargo) build --profile dist $(CARGOFLAGS)

library:
	$(cargo) rustc --profile dist $(CARGOFLAGS) --lib --no-default-features --features capi \
		--crate-type cdylib,staticlib -- -Clink-arg=-Wl,-soname,$(SONAME)

static-program:
	$(cargo) build --profile dist $(CARGOFLAGS) --target $(MUSL)

# The licences of the crates in the binaries, which these licences demand with every copy.
notices:
	CARGO='$(CARGO)' packaging/notices >$(NOTICES).new
	mv $(NOTICES).new $(NOTICES)

# The installation, often as root, uses the files of an earlier `make` as they are.
$(PROGRAM):
	$(MAKE) program
$(LIBRARY) $(ARCHIVE):
	$(MAKE) library
$(NOTICES):
	$(MAKE) notices

.PHONY: install install-program install-library uninstall
install: install-program install-library

install-program: $(PROGRAM) $(NOTICES)
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man5 \
		$(DESTDIR)$(BASHCOMPDIR) $(DESTDIR)$(ZSHCOMPDIR) $(DESTDIR)$(FISHCOMPDIR) \
		$(DESTDIR)$(SCHEMADIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SETTINGSDIR) \
		$(DESTDIR)$(FIREWALLDDIR)/zones $(DESTDIR)$(FIREWALLDDIR)/policies $(DESTDIR)$(DOCDIR) \
		$(DESTDIR)$(APPARMORDIR)
	$(INSTALL) -m 755 $(PROGRAM) $(DESTDIR)$(BINDIR)/netlaunch
	$(INSTALL) -m 644 $(PAGES1:%=man/%) $(DESTDIR)$(MANDIR)/man1
	$(INSTALL) -m 644 $(PAGES5:%=man/%) $(DESTDIR)$(MANDIR)/man5
	$(PROGRAM) completions bash >$(DESTDIR)$(BASHCOMPDIR)/netlaunch
	$(PROGRAM) completions zsh >$(DESTDIR)$(ZSHCOMPDIR)/_netlaunch
	$(PROGRAM) completions fish >$(DESTDIR)$(FISHCOMPDIR)/netlaunch.fish
	chmod 644 $(DESTDIR)$(BASHCOMPDIR)/netlaunch $(DESTDIR)$(ZSHCOMPDIR)/_netlaunch \
		$(DESTDIR)$(FISHCOMPDIR)/netlaunch.fish
	$(INSTALL) -m 644 $(SCHEMAS:%=conf/schema/%) $(DESTDIR)$(SCHEMADIR)
	$(INSTALL) -m 644 $(ZONES:%=conf/firewalld/zones/%) $(DESTDIR)$(FIREWALLDDIR)/zones
	$(INSTALL) -m 644 $(POLICIES:%=conf/firewalld/policies/%) $(DESTDIR)$(FIREWALLDDIR)/policies
	$(INSTALL) -m 644 $(DOCS) $(NOTICES) $(DESTDIR)$(DOCDIR)
	for file in $(UNITS:%=$(UNITDIR)/%) $(PROFILES:%=$(APPARMORDIR)/%); do \
		from=conf/$${file##*/}; \
		test -f $$from || from=conf/apparmor/$${file##*/}; \
		sed 's|/usr/bin/netlaunch|$(BINDIR)/netlaunch|g' $$from >$(DESTDIR)$$file && \
		chmod 644 $(DESTDIR)$$file || exit 1; \
	done
	@# Changed settings stay as they are.
	for file in $(SETTINGS); do \
		test -e $(DESTDIR)$(SETTINGSDIR)/$$file || \
			$(INSTALL) -m 644 conf/$$file $(DESTDIR)$(SETTINGSDIR) || exit 1; \
	done

install-library: $(LIBRARY) $(ARCHIVE)
	$(INSTALL) -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(PKGCONFIGDIR)
	$(INSTALL) -m 644 $(LIBRARY) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libnetlaunch.so
	$(INSTALL) -m 644 $(ARCHIVE) $(DESTDIR)$(LIBDIR)/libnetlaunch.a
	$(STRIP) --strip-debug $(DESTDIR)$(LIBDIR)/libnetlaunch.a
	$(INSTALL) -m 644 include/netlaunch.h $(DESTDIR)$(INCLUDEDIR)
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|; /^#/d' \
		netlaunch.pc.in >$(DESTDIR)$(PKGCONFIGDIR)/netlaunch.pc
	chmod 644 $(DESTDIR)$(PKGCONFIGDIR)/netlaunch.pc

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/netlaunch \
		$(PAGES1:%=$(DESTDIR)$(MANDIR)/man1/%) $(PAGES5:%=$(DESTDIR)$(MANDIR)/man5/%) \
		$(DESTDIR)$(BASHCOMPDIR)/netlaunch $(DESTDIR)$(ZSHCOMPDIR)/_netlaunch \
		$(DESTDIR)$(FISHCOMPDIR)/netlaunch.fish $(UNITS:%=$(DESTDIR)$(UNITDIR)/%) \
		$(ZONES:%=$(DESTDIR)$(FIREWALLDDIR)/zones/%) \
		$(POLICIES:%=$(DESTDIR)$(FIREWALLDDIR)/policies/%) \
		$(PROFILES:%=$(DESTDIR)$(APPARMORDIR)/%) \
		$(DESTDIR)$(LIBDIR)/$(SONAME) $(DESTDIR)$(LIBDIR)/libnetlaunch.so \
		$(DESTDIR)$(LIBDIR)/libnetlaunch.a $(DESTDIR)$(INCLUDEDIR)/netlaunch.h \
		$(DESTDIR)$(PKGCONFIGDIR)/netlaunch.pc
	rm -rf $(DESTDIR)$(DATADIR)/netlaunch $(DESTDIR)$(DOCDIR)

# dpkg-buildpackage gets -d, because Rust often comes from rustup and is no package then. dh says
# which other tool is missing.
.PHONY: deb static rpm clean
deb: all
	mkdir -p $(DIST)
	rm -f $(DIST)/*.deb $(DIST)/*.changes $(DIST)/*.buildinfo
	DEB_DESTINATION='$(abspath $(DIST))' dpkg-buildpackage -d -b --no-sign \
		--buildinfo-option=-u'$(abspath $(DIST))' --changes-option=-u'$(abspath $(DIST))' \
		--buildinfo-file='$(abspath $(DIST))/netlaunch_$(VERSION).buildinfo' \
		--changes-file='$(abspath $(DIST))/netlaunch_$(VERSION).changes'

# The archive is a tree for PREFIX: tar -C /usr/local --strip-components=1 -xf ARCHIVE
static: static-program notices
	rm -rf $(DIST)/$(STATIC)
	$(MAKE) install-program PROGRAM=$(STATIC_PROGRAM) DESTDIR=$(abspath $(DIST)/$(STATIC)).root \
		SETTINGSDIR='$$(DOCDIR)/examples' FIREWALLDDIR='$$(DOCDIR)/firewalld' \
		APPARMORDIR='$$(DOCDIR)/apparmor'
	mv $(DIST)/$(STATIC).root$(PREFIX) $(DIST)/$(STATIC)
	rm -rf $(DIST)/$(STATIC).root
	tar -C $(DIST) --sort=name --mtime=@$(SOURCE_DATE_EPOCH) --owner=0 --group=0 --numeric-owner \
		-cf - $(STATIC) | gzip -9n >$(DIST)/$(STATIC).tar.gz
	rm -rf $(DIST)/$(STATIC)

rpm: all
	rpmbuild -bb --build-in-place --nodeps --define '_topdir $(abspath $(DIST))/rpm' \
		packaging/netlaunch.spec
	mv $(DIST)/rpm/RPMS/*/*.rpm $(DIST)
	rm -rf $(DIST)/rpm

clean:
	rm -rf $(CARGO_TARGET_DIR) $(DIST)
