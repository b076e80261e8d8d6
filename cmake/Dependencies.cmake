# Every outside dependency, and why. Debian 12's versions are the floor.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)           # Status, StatusOr
find_package(spdlog REQUIRED)         # log sinks
find_package(nlohmann_json REQUIRED)  # configs, manifests
find_package(OpenSSL REQUIRED COMPONENTS Crypto)  # SHA-256
find_package(PNG REQUIRED)
find_library(TEMPERA_WEBP webp REQUIRED)
find_package(JPEG REQUIRED)
find_library(TEMPERA_UTF8PROC utf8proc REQUIRED)  # Unicode of tokenizers

# oneDNN: a row of the kernel table; without it the project's own kernels serve.
# (Debian's package file wants OpenCL, which the CPU engine does not need: so no find_package.)
find_library(TEMPERA_DNNL dnnl)
find_path(TEMPERA_DNNL_INCLUDE dnnl.hpp)

# LibTorch 2.x: own imported targets, because the wheel's package file wants a CUDA toolkit that the CPU build does not need.
if(TEMPERA_TORCH)
  set(TEMPERA_TORCH_ROOT "${PROJECT_SOURCE_DIR}/.deps/libtorch/torch" CACHE PATH
      "Folder of LibTorch 2.x that holds lib/ and include/")
  if(NOT EXISTS "${TEMPERA_TORCH_ROOT}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "no LibTorch in ${TEMPERA_TORCH_ROOT}: call `./run setup`, or pass -DTEMPERA_TORCH_ROOT=")
  endif()
  add_library(tempera_c10 SHARED IMPORTED)
  set_target_properties(tempera_c10 PROPERTIES IMPORTED_LOCATION ${TEMPERA_TORCH_ROOT}/lib/libc10.so)
  add_library(tempera_torch_cpu SHARED IMPORTED)
  set_target_properties(tempera_torch_cpu PROPERTIES IMPORTED_LOCATION ${TEMPERA_TORCH_ROOT}/lib/libtorch_cpu.so
    INTERFACE_LINK_LIBRARIES tempera_c10)
  add_library(tempera_torch INTERFACE)
  target_include_directories(tempera_torch SYSTEM INTERFACE
    ${TEMPERA_TORCH_ROOT}/include ${TEMPERA_TORCH_ROOT}/include/torch/csrc/api/include)
  target_link_libraries(tempera_torch INTERFACE tempera_torch_cpu tempera_c10)
  target_link_options(tempera_torch INTERFACE -Wl,--allow-shlib-undefined)
endif()

if(TEMPERA_SERVICE)
  find_package(Protobuf REQUIRED)  # before gRPC: Debian's gRPC config refers to its targets
  find_package(gRPC CONFIG REQUIRED)
  find_package(prometheus-cpp CONFIG REQUIRED)
  find_package(SQLite3 REQUIRED)
  find_package(Boost 1.74 REQUIRED)  # Asio and Beast, headers only
  find_package(CLI11 REQUIRED)
  find_library(TEMPERA_SIXEL sixel REQUIRED)  # pictures on terminals
  find_path(TEMPERA_SIXEL_INCLUDE sixel.h PATH_SUFFIXES sixel REQUIRED)
endif()
if(TEMPERA_TESTS)
  find_package(GTest REQUIRED)
endif()
