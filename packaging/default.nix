# Builds netlaunch with Nix: nix-build packaging
#
# Programs such as passt, QEMU, dnsmasq and nft are not dependencies: netlaunch looks them up in
# PATH, as it does on every system, and `netlaunch probe` names those that are missing.
{ pkgs ? import <nixpkgs> { } }:

let
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);
in
pkgs.rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  version = manifest.package.version;

  # Neither build products nor the history are inputs.
  src = builtins.filterSource
    (path: type: !(builtins.elem (baseNameOf path) [ ".git" "target" "dist" ]))
    ./..;
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [ pkgs.python3 ];

  # The tests need root, network namespaces and guests.
  doCheck = false;

  postPatch = "patchShebangs packaging/notices";
  buildPhase = ''
    runHook preBuild
    make all
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    make install PREFIX=$out SETTINGSDIR=$out/share/doc/netlaunch/examples \
      FIREWALLDDIR=$out/lib/firewalld APPARMORDIR=$out/etc/apparmor.d
    runHook postInstall
  '';

  meta = {
    description = manifest.package.description;
    homepage = manifest.package.repository;
    license = pkgs.lib.licenses.mit;
    platforms = pkgs.lib.platforms.linux;
    mainProgram = "netlaunch";
  };
}
