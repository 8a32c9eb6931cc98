#!/bin/sh
# Make the desktop of this user (or of XDG_DATA_HOME) know .yoto files: type, thumbnails, and what opens them.
set -eu
here=$(dirname "$0")
data=${XDG_DATA_HOME:-$HOME/.local/share}
mkdir -p "$data/mime/packages" "$data/thumbnailers" "$data/applications"
cp "$here/yoto.xml" "$data/mime/packages/"
cp "$here/yoto-codec.thumbnailer" "$data/thumbnailers/"
cp "$here/yoto-codec.desktop" "$data/applications/"
update-mime-database "$data/mime"
if command -v update-desktop-database >/dev/null; then
    update-desktop-database "$data/applications"
fi
command -v yoto-codec >/dev/null || echo "Note: yoto-codec is not on the PATH, where the desktop looks for it" >&2
