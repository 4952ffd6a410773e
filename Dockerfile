# The site alone, without TensorFlow. Build and run, with nothing writable inside:
#   docker build -t cxr-site .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -p 127.0.0.1:5000:5000 cxr-site
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 KERAS_HOME=/tmp/keras MALLOC_ARENA_MAX=2
WORKDIR /site
COPY requirements-serve.txt .
RUN pip install --no-cache-dir -r requirements-serve.txt

COPY app.py gradcam.py ./
COPY cxr cxr
COPY templates templates
COPY static static
COPY model/chest_xray_densenet_model.h5 model/
COPY model/anatomy.h5 model/
COPY images images
# Compiled once here: the running container cannot write.
RUN python -m compileall -q app.py gradcam.py cxr && useradd --system --no-create-home --uid 10001 site

USER site
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/readyz', timeout=2)"]
# Inside the container every address is its own; --trusted-host names the ones that visitors may use.
CMD ["python", "app.py", "--host", "0.0.0.0", "--trusted-host", "localhost", "--trusted-host", "127.0.0.1"]
