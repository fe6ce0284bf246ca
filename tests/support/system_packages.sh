#!/bin/sh
# Looks for what pip cannot bring (venv, Python's headers, a compiler, OpenGL) and, as root on a system with apt-get,
# installs what is missing. Elsewhere it says what is missing and goes on: tests that need it skip and say so.
#
#   system_packages.sh demo|test PYTHON
#
# Ends with 1 only where nothing could work: no C++ compiler, no Python headers, no venv.
set -u
purpose=${1:?demo or test}
python=${2:-}

has_library() { # by its soname, as the loader finds it
    "${python:-python3}" -c "import ctypes; ctypes.CDLL('$1')" 2>/dev/null
}

missing=""  # Debian packages
vital=""    # the part of it without which nothing works
want() { # package, vital?
    missing="$missing $1"
    if [ "${2:-}" = vital ]; then vital="$vital $1"; fi
}

look() {
    missing="" vital=""
    command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || want g++ vital
    if [ -n "$python" ]; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        if [ ! -e .venv/.stamp-venv ]; then
            "$python" -c 'import venv, ensurepip' 2>/dev/null || want "python$version-venv" vital
        fi
        "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' \
            || want "python$version-dev" vital
    fi
    # OpenCV's window code is linked to these two, though no window is ever opened here
    has_library libGL.so.1 || want libgl1
    has_library libgthread-2.0.so.0 || want libglib2.0-0
    if [ "$purpose" = test ]; then
        # the page is tried in a real browser
        command -v chromium >/dev/null || command -v google-chrome >/dev/null || want chromium
        command -v chromedriver >/dev/null || want chromium-driver
        # the data engine renders with OpenGL, on the CPU where there is no GPU
        has_library libEGL.so.1 || want libegl1
        has_library libOpenGL.so.0 || want libopengl0
        has_library libGLESv2.so.2 || want libgles2
        has_library libEGL_mesa.so.0 || has_library libEGL_nvidia.so.0 || want libegl-mesa0
        # the GStreamer element is tested in real pipelines; gi must be built for the Python in use
        /usr/bin/python3 -c 'import gi' 2>/dev/null || want python3-gi
        find /usr/lib/python3* -name '_gi_gst*.so' 2>/dev/null | grep -q . || want python3-gst-1.0
        command -v gst-launch-1.0 >/dev/null || want gstreamer1.0-tools
        find /usr/lib -name 'GstVideo-1.0.typelib' 2>/dev/null | grep -q . || want gir1.2-gst-plugins-base-1.0
        find /usr/lib -name 'libgstvideotestsrc.so' 2>/dev/null | grep -q . || want gstreamer1.0-plugins-base
        find /usr/lib -name 'libgstpython.so' 2>/dev/null | grep -q . || want gstreamer1.0-python3-plugin-loader
        find /usr/lib /usr/lib64 -name 'swrast_dri.so' -o -name 'libgallium*.so' 2>/dev/null | grep -q . || want libgl1-mesa-dri
    fi
}

look
[ -n "$missing" ] || exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && [ "${RT_SWAP_TEST_NO_APT:-}" != 1 ]; then
    echo "installing system packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # one word a package
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >&2 \
        || echo "apt-get could not install them all" >&2
    look
    [ -n "$missing" ] || exit 0
fi
echo "missing system packages (Debian's names):$missing" >&2
if [ -n "$vital" ]; then
    echo "without$vital nothing can be built; install with: sudo apt-get install$missing" >&2
    exit 1
fi
echo "going on; what needs them is skipped or fails with a message of its own" >&2
exit 0
